"""Runs measurements one after the other: says which, bounds each, and keeps what they found."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping

from tests.bench.report import Result, progress, say, table

Measure = Callable[[float], AsyncGenerator[Result]]

MEASURE_S = 900.0  # the longest takes a third of it on two cores


async def run(
    measures: Mapping[str, Measure], scale: float, within_s: float = MEASURE_S
) -> list[str]:
    """Print JSON lines on stdout, and what is under way and a table on stderr.

    Answers what went wrong: measurements that failed or took too long, bounds that do not hold.
    """
    results: list[Result] = []
    wrong: list[str] = []
    for number, (name, measure) in enumerate(measures.items(), 1):
        progress(f"[{number}/{len(measures)}] {name}")
        began = time.monotonic()
        try:
            async with asyncio.timeout(within_s):
                async for result in measure(scale):
                    results.append(say(result))
                    await asyncio.sleep(0)
        except Exception as error:  # noqa: BLE001 - the others are measured all the same
            wrong.append(f"{name}: {error!r} after {time.monotonic() - began:.0f} s")
            progress(wrong[-1])
        else:
            progress(f"[{number}/{len(measures)}] {name}: {time.monotonic() - began:.0f} s")
    table(results)
    wrong += [f"{each.measure}: the bound does not hold" for each in results if each.broken]
    for each in wrong:
        progress(each)
    return wrong
