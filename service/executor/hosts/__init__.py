"""Worker host processes: user code runs in them, beside the process that serves."""
