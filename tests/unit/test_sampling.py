"""OpenTelemetry's sampler variables decide which traces are recorded, as in any SDK."""

import pytest

from service.signals.tracing.sampling import Sampling

LOW, HIGH = f"{1:032x}", "f" * 32
SAMPLED, NOT_SAMPLED = f"00-{HIGH}-{1:016x}-01", f"00-{HIGH}-{1:016x}-00"


def sampling(name: str = "", argument: str = "") -> Sampling:
    return Sampling.of({"OTEL_TRACES_SAMPLER": name, "OTEL_TRACES_SAMPLER_ARG": argument})


@pytest.mark.parametrize(
    ("name", "argument", "low", "high", "sampled", "not_sampled"),
    [
        ("", "", True, True, True, False),
        ("parentbased_always_on", "", True, True, True, False),
        ("parentbased_always_off", "", False, False, True, False),
        ("parentbased_traceidratio", "0.5", True, False, True, False),
        ("always_on", "", True, True, True, True),
        ("always_off", "", False, False, False, False),
        ("traceidratio", "0.5", True, False, False, False),
        ("traceidratio", "", True, True, True, True),
        ("traceidratio", "0", False, False, False, False),
    ],
)
def test_samplers(
    name: str,
    argument: str,
    low: bool,  # noqa: FBT001
    high: bool,  # noqa: FBT001
    sampled: bool,  # noqa: FBT001
    not_sampled: bool,  # noqa: FBT001
) -> None:
    made = sampling(name, argument)
    assert made.ignored is None
    assert (made.begins(LOW), made.begins(HIGH)) == (low, high)
    assert (made.records(SAMPLED), made.records(NOT_SAMPLED)) == (sampled, not_sampled)


@pytest.mark.parametrize(
    ("name", "argument"),
    [("jaeger_remote", "x"), ("traceidratio", "2"), ("traceidratio", "nan"), ("traceidratio", "x")],
)
def test_what_is_no_sampler_is_named_and_not_followed(name: str, argument: str) -> None:
    made = sampling(name, argument)
    assert made.ignored is not None
    assert (made.begins(HIGH), made.records(SAMPLED), made.records(NOT_SAMPLED)) == (
        True, True, False,
    )  # fmt: skip


def test_what_is_no_trace_is_not_recorded() -> None:
    assert not sampling("always_on").records("")
