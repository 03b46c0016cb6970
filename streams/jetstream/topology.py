"""The streams that Holdfast needs, as data; a stream of another shape is refused.

``PLANS`` is the log: it is never trimmed, and a full one refuses. ``AUDIT`` holds what happened
around the log for 30 days, ``SNAPSHOTS`` copies of the read models in a cluster. How many bytes
they hold is said by `streams.jetstream.bounds`.
"""

from collections.abc import Collection
from typing import Any

import msgspec

from streams.jetstream.bounds import NO_BOUND, Ask, Bound, limited, may_limit
from streams.jetstream.names import PLAIN, Names
from streams.jetstream.refusals import ACCOUNT_FULL, SERVER_FULL, STORAGE_FULL
from streams.json_values import UNREADABLE
from streams.log import LogReset, LogUnavailable, TopologyMismatch
from streams.subjects import ALL_AUDIT, ALL_PLANS, ALL_SNAPSHOTS

NANOSECONDS = 1_000_000_000
DUPLICATE_WINDOW_S = 120
AUDIT_KEPT_S = 30 * 24 * 3600
NOT_FOUND = 10059
IN_USE = 10058
OVERLAP = 10065

Config = dict[str, Any]


class ApiError(msgspec.Struct, frozen=True):
    """JetStream's refusal."""

    code: int = 0
    err_code: int = 0
    description: str = ""


class StreamExtent(msgspec.Struct, frozen=True):
    """The numbers of a stream.

    ``last_ts`` is the time of the last message, ``subjects`` counts messages by subject, if that
    was asked for.
    """

    first_seq: int = 0
    last_seq: int = 0
    bytes: int = 0
    last_ts: str = ""
    subjects: dict[str, int] | None = None


class StreamAnswer(msgspec.Struct, frozen=True):
    """A description, or a refusal."""

    config: Config | None = None
    created: str = ""
    state: StreamExtent = StreamExtent()
    error: ApiError | None = None


class ReplicaInfo(msgspec.Struct, frozen=True):
    """A follower as its leader sees it.

    ``active``: heard so many nanoseconds ago; ``lag``: so many entries are missing there, and none
    where it is ``current``.
    """

    active: int = 0
    name: str = ""
    current: bool = False
    lag: int = 0

    @property
    def silent_s(self) -> float | None:
        """Seconds since the leader has heard it; None: never since the leader was elected.

        A leader says 0 of a follower that it has never heard. It says 0 as well of one that it
        hears at this moment, which is current but for the entries of that moment.
        """
        return self.active / NANOSECONDS if self.active or self.current else None


class ClusterInfo(msgspec.Struct, frozen=True):
    """A stream's group; ``leader`` is empty when it has none, and lists its followers."""

    leader: str = ""
    replicas: tuple[ReplicaInfo, ...] = ()


class StreamLimits(msgspec.Struct, frozen=True):
    """What a stream may hold, in bytes (-1 or 0 for no bound), and what is noted about it."""

    max_bytes: int = -1
    metadata: dict[str, str] = {}


class InfoAnswer(msgspec.Struct, frozen=True):
    """The parts of STREAM.INFO that are used."""

    config: StreamLimits = StreamLimits()
    created: str = ""
    ts: str = ""
    state: StreamExtent = StreamExtent()
    cluster: ClusterInfo | None = None
    error: ApiError | None = None


_info_answer = msgspec.json.Decoder(InfoAnswer).decode


async def info_of(ask: Ask, stream: str, question: bytes = b"") -> InfoAnswer:
    """How a stream is, by whatever server answers. Raises LogReset when it is gone, LogUnavailable.

    ``question`` is the request's JSON body, b"" for none.
    """
    answer = await ask(f"STREAM.INFO.{stream}", question)
    try:
        info = _info_answer(answer)
    except UNREADABLE as error:
        raise LogUnavailable(f"stream {stream}: the answer cannot be read: {error}") from error
    if info.error is None:
        return info
    if info.error.err_code == NOT_FOUND:
        raise LogReset(f"stream {stream} is gone")
    raise LogUnavailable(f"stream {stream} cannot be described: {info.error.description}")


def epoch_of(stream: str, info: InfoAnswer) -> str:
    """A name that a stream does not share with one that is made anew.

    A stream keeps the time of its making, to the nanosecond, on every replica and through every
    restart and restore.
    """
    return f"{stream}@{info.created}"


_FULL_ONE_REFUSES: Config = {  # nothing is trimmed to make room
    "storage": "file",
    "retention": "limits",
    "discard": "new",
    "max_age": 0,
    "max_msgs": -1,
    "max_msgs_per_subject": -1,
}


def plans_stream(names: Names = PLAIN, *, replicas: int = 1) -> Config:
    """The log's configuration."""
    return {
        "name": names.plans_stream,
        "subjects": [names.outside(ALL_PLANS)],
        **_FULL_ONE_REFUSES,
        "num_replicas": replicas,
        "duplicate_window": DUPLICATE_WINDOW_S * NANOSECONDS,
        "allow_direct": True,
        "allow_atomic": True,
        "allow_msg_ttl": True,
        "deny_delete": True,
    }


def audit_stream(names: Names = PLAIN, *, replicas: int = 1) -> Config:
    """The audit trail's configuration: 30 days, then forgotten."""
    return {
        "name": names.audit_stream,
        "subjects": [names.outside(ALL_AUDIT)],
        "storage": "file",
        "retention": "limits",
        "discard": "old",
        "max_age": AUDIT_KEPT_S * NANOSECONDS,
        "num_replicas": replicas,
        "allow_direct": True,
        "allow_atomic": True,
    }


def snapshots_stream(names: Names = PLAIN, *, replicas: int = 1) -> Config:
    """The configuration for snapshots of the read models: what does not fit is refused."""
    return {
        "name": names.snapshots_stream,
        "subjects": [names.outside(ALL_SNAPSHOTS)],
        **_FULL_ONE_REFUSES,
        "num_replicas": replicas,
        "allow_direct": True,
        "allow_rollup_hdrs": True,
    }


# What a stream that another program made may carry, and what would break a promise.
_MUST_BE_ABSENT: Config = {
    "sealed": False,
    "no_ack": False,
    "mirror": None,
    "sources": None,
    "subject_transform": None,
    "subject_delete_marker_ttl": 0,
    "persist_mode": "default",
    "max_msg_size": -1,
}
# At least this much: more does no harm.
_AT_LEAST = {"duplicate_window"}


# What an older Holdfast did not ask of its audit trail, and this one may add by itself.
BATCHES = frozenset({"allow_atomic"})


async def ensure_stream(
    ask: Ask,
    wanted: Config,
    *,
    may_turn_on: Collection[str] = frozenset(),
    bound: Bound = NO_BOUND,
) -> None:
    """Make the stream unless it exists; either way read it back and compare.

    What ``may_turn_on`` names is turned on in a stream that exists without it, and ``bound`` is
    applied to one that nobody else has bounded.
    Raises TopologyMismatch when it differs in anything Holdfast relies on, LogUnavailable when
    JetStream refuses.
    """
    name = wanted["name"]
    found = await ask_about_stream(ask, f"STREAM.INFO.{name}", b"")
    if found.error is not None and found.error.err_code == NOT_FOUND:
        created = await _create(ask, wanted, bound)
        if created.error is not None and created.error.err_code == OVERLAP:
            raise TopologyMismatch(
                f"stream {name} cannot be made: {created.error.description}. "
                "Set nats.prefix, or give Holdfast a NATS account of its own."
            )
        if created.error is not None and created.error.err_code != IN_USE:
            raise LogUnavailable(f"stream {name} cannot be made: {created.error.description}")
        found = await ask_about_stream(ask, f"STREAM.INFO.{name}", b"")
    if found.config is None:
        reason = found.error.description if found.error else "no configuration in the answer"
        raise LogUnavailable(f"stream {name} cannot be read: {reason}")
    missing = {field: True for field in may_turn_on if not found.config.get(field)}
    if missing:
        await ask_about_stream(
            ask, f"STREAM.UPDATE.{name}", msgspec.json.encode({**found.config, **missing})
        )
        found = await ask_about_stream(ask, f"STREAM.INFO.{name}", b"")
    compare(wanted, found.config or {})
    await _apply_bound(ask, found, bound)


async def _create(ask: Ask, wanted: Config, bound: Bound) -> StreamAnswer:
    """Make the stream, without its bound if there is no such room and the bound is no must."""
    name, limit = wanted["name"], bound.bytes_for(0)
    forms = [wanted] if limit is None else [limited(wanted, limit), wanted]
    created = StreamAnswer()
    for form in forms[: 1 if bound.required else None]:
        # Pedantic: refuse instead of silently changing what does not go together.
        body = msgspec.json.encode({**form, "pedantic": True})
        created = await ask_about_stream(ask, f"STREAM.CREATE.{name}", body)
        if created.error is None or created.error.err_code not in _NO_ROOM:
            break
    return created


_NO_ROOM = {ACCOUNT_FULL, SERVER_FULL, STORAGE_FULL}


async def _apply_bound(ask: Ask, found: StreamAnswer, bound: Bound) -> None:
    """Bound a stream that is there. Raises LogUnavailable where the bound is a must."""
    config, stored = found.config or {}, found.state.bytes
    limit = bound.bytes_for(stored)
    if limit is None or not may_limit(config, limit, stored):
        return
    body = msgspec.json.encode(limited(config, limit))
    answer = await ask_about_stream(ask, f"STREAM.UPDATE.{config['name']}", body)
    if answer.error is not None and bound.required:
        raise LogUnavailable(
            f"stream {config['name']} cannot be bounded to {limit} bytes: "
            f"{answer.error.description}"
        )


async def ask_about_stream(ask: Ask, subject: str, body: bytes) -> StreamAnswer:
    """The server's answer to a question about a stream. Raises what is in UNREADABLE."""
    return msgspec.json.decode(await ask(subject, body), type=StreamAnswer)


def compare(wanted: Config, found: Config) -> None:
    """Raise TopologyMismatch with every field of ``found`` that breaks what Holdfast relies on."""
    name = wanted["name"]
    faults = [
        f"{field} is {_show(found.get(field))}, wanted {_show(value)}"
        for field, value in {**_MUST_BE_ABSENT, **wanted}.items()
        if not _fits(field, value, found.get(field))
    ]
    if faults:
        raise TopologyMismatch(
            f"stream {name} exists with another configuration: {'; '.join(faults)}. "
            f"Change it (`nats stream edit {name}`), change Holdfast's settings to match, "
            "set nats.prefix, or give Holdfast a NATS account of its own."
        )


def _fits(field: str, wanted: object, found: object) -> bool:
    if found is None:  # servers leave out what is unset
        return wanted in (False, 0, None, "default", -1)
    if field in _AT_LEAST and isinstance(found, int) and isinstance(wanted, int):
        return found >= wanted
    if wanted == -1:
        return found in (-1, 0)  # no limit
    return found == wanted


def _show(value: object) -> str:
    return "unset" if value is None else msgspec.json.encode(value).decode()
