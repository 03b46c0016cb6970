"""What the process rests on: threads and loops, child processes, the data folder, the embedded server."""
