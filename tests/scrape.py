"""What an instance counts, as a scraper sees it."""

import re
from collections import defaultdict
from collections.abc import Mapping

import httpx

_sample = re.compile(r"([a-z_]+)(?:\{(.*)\})? (\S+)").fullmatch
_labels = re.compile(r'([a-z_]+)="([^"]*)"').findall

Labels = frozenset[tuple[str, str]]


class Snapshot:
    """The samples of one scrape of /metrics."""

    def __init__(self, text: str) -> None:
        self._samples: dict[str, dict[Labels, float]] = defaultdict(dict)
        for line in text.splitlines():
            if found := _sample(line):
                name, labels, value = found.groups()
                self._samples[name][frozenset(_labels(labels or ""))] = float(value)

    def sum(self, name: str, **labels: str) -> float:
        """The sum over all series of a sample that bear ``labels``; KeyError if there are none."""
        wanted = set(labels.items())
        series: Mapping[Labels, float] = self._samples[name]
        if not series:
            raise KeyError(name)
        return sum(value for given, value in series.items() if wanted <= given)


def scraped(url: str) -> Snapshot:
    """What the instance at `url` counts now."""
    return Snapshot(httpx.get(f"{url}/metrics", timeout=20).raise_for_status().text)
