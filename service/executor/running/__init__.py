"""Where handlers run: threads and processes of the worker pool."""
