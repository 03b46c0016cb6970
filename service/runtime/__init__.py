"""What the process rests on: threads, child processes, the data folder, the embedded server."""
