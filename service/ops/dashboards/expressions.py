"""How panels ask: rates, quantiles and present values of the chosen instances."""

from service.ops.dashboards.drawing import INSTANCE

AT = "{{instance}}"


def rate(counter: str, by: str = "instance") -> str:
    """How much a counter grows per second, over the span of a few samples."""
    return f"sum by ({by}) (rate({counter}{{{INSTANCE}}}[$__rate_interval]))"


def quantile(q: float, histogram: str, by: str = "instance") -> str:
    """What a share ``q`` of the observations stays under."""
    return f"histogram_quantile({q}, {rate(f'{histogram}_bucket', f'{by}, le')})"


def mean(histogram: str, by: str = "instance") -> str:
    """The mean of the observations."""
    return f"{rate(f'{histogram}_sum', by)} / {rate(f'{histogram}_count', by)}"


def now(gauge: str) -> str:
    """A gauge as it is."""
    return f"{gauge}{{{INSTANCE}}}"
