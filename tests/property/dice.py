"""Random plans and random effort: what the property tests throw dice for."""

import os

from hypothesis import Phase, settings
from hypothesis import strategies as st

from streams.plan.events import JoinRule, Submitted, TaskSpec

LONG = os.environ.get("HOLDFAST_FAULTS") == "long"

MAX_TASKS = 7


def effort(examples: int, steps: int = 50) -> settings:
    """So many examples of so many steps; twenty times as many in the long form.

    The short form names the failing example as it was found, with the blob that repeats it: to make
    it smaller takes minutes, and the long form does so.
    """
    phases = set(Phase) if LONG else set(Phase).difference((Phase.shrink, Phase.explain))
    return settings(
        phases=phases,
        max_examples=examples * (20 if LONG else 1),
        stateful_step_count=steps * (2 if LONG else 1),
    )


@st.composite
def task_specs(draw: st.DrawFn, position: int) -> TaskSpec:
    """A task that depends on earlier ones only, so that plans have no cycles."""
    earlier = [f"t{n}" for n in range(position)]
    some = st.lists(st.sampled_from(earlier), unique=True, max_size=4) if earlier else st.just([])
    depends_on = tuple(draw(some))
    target = draw(st.none() | st.sampled_from(earlier)) if earlier else None
    joins: list[JoinRule] = ["all", "any", "quorum"] if depends_on else ["all"]
    join = draw(st.sampled_from(joins))
    if target is not None and target not in depends_on:
        depends_on = (*depends_on, target)
    return TaskSpec(
        id=f"t{position}",
        kind=draw(st.sampled_from(["x", "y"])),
        type="worker" if target is None else "critic",
        target=target,
        depends_on=depends_on,
        join=join,
        quorum=draw(st.integers(1, len(depends_on))) if join == "quorum" else None,
        on_failure=draw(st.sampled_from(["fail_plan", "continue"])),
        priority=draw(st.integers(-1, 1)),
        max_retries=draw(st.integers(0, 2)),
        max_lost_leases=draw(st.integers(0, 2)),
        lease_s=draw(st.sampled_from([1.0, 5.0])),
    )


@st.composite
def plans(draw: st.DrawFn) -> Submitted:
    """A plan with all features."""
    size = draw(st.integers(1, MAX_TASKS))
    tasks = tuple(draw(task_specs(position)) for position in range(size))
    return Submitted(tasks=tasks, priority=draw(st.integers(0, 1)))
