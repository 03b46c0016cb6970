"""Writes what is drawn from data: `python -m service.ops`."""

from collections.abc import Iterator
from pathlib import Path

from service.ops.dashboards.drawing import drawn
from service.ops.dashboards.event_streams import EVENT_STREAMS
from service.ops.dashboards.internals import MACHINE_ROOM
from service.ops.dashboards.overview import OVERVIEW
from service.signals.metrics.catalogue import CATALOGUE, Metric

HERE = Path(__file__).parent
DASHBOARDS = {"overview": OVERVIEW, "machine-room": MACHINE_ROOM, "sse": EVENT_STREAMS}
"""By the name of the file."""

_HEAD = """# Metrics

Drawn from `service/signals/metrics/catalogue.py` by `python -m service.ops`. Every series that is
known beforehand is there from the start, at 0; label values are the ones listed and no others.
`process_*` (CPU, memory, open files) and `holdfast_build_info` (version) stand beside them.

| name | in Prometheus | kind | labels | what is counted | alert |
|---|---|---|---|---|---|
"""


def files() -> Iterator[tuple[Path, str]]:
    """Every file that is drawn, with its text."""
    yield HERE / "METRICS.md", _HEAD + "".join(_row(metric) for metric in CATALOGUE.values())
    for name, dashboard in DASHBOARDS.items():
        yield HERE / "dashboards" / f"{name}.json", drawn(dashboard)


def _row(metric: Metric) -> str:
    labels = "; ".join(f"`{each.name}`: {', '.join(each.values)}" for each in metric.labels)
    alert = f"[{metric.alert}](RUNBOOK.md#{metric.alert.lower()})" if metric.alert else ""
    unit = ", seconds" if metric.unit else ""
    cells = (
        f"`{metric.name}`",
        f"`{metric.prometheus_name}`",
        f"{metric.kind}{unit}",
        labels,
        metric.help,
        alert,
    )
    return f"| {' | '.join(cells)} |\n"


def main() -> None:
    """Write all of them."""
    for path, text in files():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
