"""Snapshots of the read models that instances keep beside their log, and start from."""
