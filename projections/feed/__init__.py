"""Server-sent events: one tail of the log, rendered once, pushed to all its clients."""

from projections.feed.feed import Feed, NoStream

__all__ = ["Feed", "NoStream"]
