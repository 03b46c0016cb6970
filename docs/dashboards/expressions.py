"""How panels ask: rates, quantiles and present values of the chosen job and instances."""

from docs.dashboards.drawing import INSTANCE

AT = "{{instance}}"


def rate(counter: str, by: str = "instance") -> str:
    """How much a counter grows per second, over the span of a few samples."""
    return f"sum by ({by}) (rate({counter}{{{INSTANCE}}}[$__rate_interval]))"


def quantile(q: str, histogram: str, by: str = "instance") -> str:
    """What a share ``q`` of the last minute's observations stays under, at the worst instance.

    Not ``histogram_quantile``: it can only guess between two buckets, and there are few.
    """
    name, seconds, _ = histogram.partition("_seconds")
    series = f'{name}_recent{seconds}{{quantile="{q}",{INSTANCE}}}'
    return f"max by ({by}) ({series})"


def mean(histogram: str, by: str = "instance") -> str:
    """The mean of the observations."""
    return f"{rate(f'{histogram}_sum', by)} / {rate(f'{histogram}_count', by)}"


def now(gauge: str) -> str:
    """A gauge as it is."""
    return f"{gauge}{{{INSTANCE}}}"
