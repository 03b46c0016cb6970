"""The core: what can be asked of Holdfast and what it answers, for HTTP, executor and daemons."""
