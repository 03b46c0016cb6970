"""The settings: what can be configured, how it is read, and what SIGHUP reads again."""
