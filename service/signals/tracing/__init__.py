"""Spans of what was done under which trace, and their export."""
