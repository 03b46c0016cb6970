"""Which traces are recorded: OpenTelemetry's OTEL_TRACES_SAMPLER and OTEL_TRACES_SAMPLER_ARG.

https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
"""

import os
from collections.abc import Mapping

import msgspec

from streams.traceparent import is_sampled, new_traceparent, trace_id_of

SAMPLER = "OTEL_TRACES_SAMPLER"
SAMPLER_ARGUMENT = "OTEL_TRACES_SAMPLER_ARG"
PARENT_BASED = "parentbased_"
SAMPLERS = {"always_on": 1.0, "always_off": 0.0, "traceidratio": None}
RANDOM_BITS = 64  # of a trace id, its last ones: two systems with one ratio take the same traces


class Sampling(msgspec.Struct, frozen=True):
    """``ratio`` of the traces that begin here; of others as their parent says, or by ``ratio``.

    ``ignored`` is what the environment says that is no sampler.
    """

    ratio: float = 1.0
    parent_based: bool = True
    ignored: str | None = None

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> "Sampling":
        """As the variables say; what they say wrongly counts as not said."""
        name = environment.get(SAMPLER, "").strip() or "parentbased_always_on"
        root = name.removeprefix(PARENT_BASED)
        if root not in SAMPLERS:
            return cls(ignored=f"{SAMPLER}={name}")
        ratio = SAMPLERS[root]
        if ratio is None:
            said = environment.get(SAMPLER_ARGUMENT, "").strip() or "1"
            ratio = _number(said)
            if not 0 <= ratio <= 1:
                return cls(ignored=f"{SAMPLER_ARGUMENT}={said}")
        return cls(ratio=ratio, parent_based=name.startswith(PARENT_BASED))

    def begins(self, trace_id: str) -> bool:
        """Whether a trace that begins here is sampled."""
        if self.ratio >= 1:
            return True
        bits = int(trace_id, 16) & (2**RANDOM_BITS - 1)
        return bits < round(self.ratio * 2**RANDOM_BITS)

    def records(self, traceparent: str) -> bool:
        """Whether a span of this trace is recorded."""
        trace_id = trace_id_of(traceparent)
        if trace_id is None:
            return False
        return is_sampled(traceparent) if self.parent_based else self.begins(trace_id)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return -1.0


SAMPLING = Sampling.of(os.environ)
"""This process's sampling."""


def begun_traceparent() -> str:
    """The beginning of a new trace, sampled or not as this process samples."""
    traceparent = new_traceparent()
    sampled = SAMPLING.begins(trace_id_of(traceparent) or "0")
    return traceparent if sampled else f"{traceparent[:-2]}00"
