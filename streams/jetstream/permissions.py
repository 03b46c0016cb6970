"""What a user of NATS may publish and hear: the service, a reader of the log, and maintenance.

The service writes facts and makes its streams. It may neither purge nor delete messages or streams.
Maintenance copies whole streams and restores them where there are none; it writes no facts.
Retention purges the log, and may do nothing else.
The reader belongs to an account of its own and reaches the log through imports: within the
service's account the reply subject of a question would let it write facts.
"""

from collections.abc import Sequence
from typing import Any

from streams.subjects import ALL_AUDIT, ALL_PLANS, ALL_SNAPSHOTS, GOODBYES

ANSWERS = "_INBOX.>"
SERVICE_ACCOUNT, READER_ACCOUNT = "HOLDFAST", "READER"
SERVICE, READER, MAINTENANCE, RETENTION = "service", "reader", "maintenance", "retention"

_API = "$JS.API."
SERVICE_PUBLISHES = (
    ALL_PLANS,
    ALL_AUDIT,
    ALL_SNAPSHOTS,
    GOODBYES,
    f"{_API}INFO",
    f"{_API}STREAM.INFO.*",
    f"{_API}STREAM.CREATE.*",
    f"{_API}STREAM.UPDATE.*",
    f"{_API}STREAM.MSG.GET.*",
    f"{_API}DIRECT.GET.>",
    f"{_API}CONSUMER.>",
    "$JS.ACK.>",
)
SERVICE_HEARS = (ANSWERS, GOODBYES)
MAINTENANCE_PUBLISHES = (
    f"{_API}INFO",
    f"{_API}STREAM.INFO.*",
    f"{_API}STREAM.SNAPSHOT.*",
    f"{_API}STREAM.RESTORE.*",
    "$JS.SNAPSHOT.>",
)
RETENTION_PUBLISHES = (f"{_API}STREAM.PURGE.PLANS",)
# What a reader asks, and whether the answer is a stream of messages.
READER_ASKS = {
    f"{_API}INFO": False,
    f"{_API}STREAM.INFO.*": False,
    f"{_API}STREAM.NAMES": False,
    f"{_API}STREAM.LIST": False,
    f"{_API}STREAM.MSG.GET.*": False,
    f"{_API}DIRECT.GET.>": True,
    f"{_API}CONSUMER.CREATE.>": False,
    f"{_API}CONSUMER.INFO.>": False,
    f"{_API}CONSUMER.MSG.NEXT.>": True,
}
READER_HEARS = (ALL_PLANS, ALL_AUDIT)


def accounts(passwords: dict[str, str]) -> dict[str, Any]:
    """The section ``accounts`` of a nats-server's configuration, for the four users."""
    return {
        SERVICE_ACCOUNT: {
            "jetstream": "enabled",
            "users": [
                _user(SERVICE, passwords, SERVICE_PUBLISHES, SERVICE_HEARS),
                _user(MAINTENANCE, passwords, MAINTENANCE_PUBLISHES, [ANSWERS]),
                _user(RETENTION, passwords, RETENTION_PUBLISHES, [ANSWERS]),
            ],
            "exports": [
                *({"stream": subject, "accounts": [READER_ACCOUNT]} for subject in READER_HEARS),
                *map(_exported, READER_ASKS),
            ],
        },
        READER_ACCOUNT: {
            "users": [_user(READER, passwords, [*READER_ASKS], [ANSWERS, *READER_HEARS])],
            "imports": [
                *({"stream": _of_the_service(subject)} for subject in READER_HEARS),
                *({"service": _of_the_service(subject)} for subject in READER_ASKS),
            ],
        },
    }


def _user(
    name: str, passwords: dict[str, str], publishes: Sequence[str], hears: Sequence[str]
) -> dict[str, Any]:
    allowed = {"publish": {"allow": [*publishes]}, "subscribe": {"allow": [*hears]}}
    return {"user": name, "password": passwords[name], "permissions": allowed}


def _exported(subject: str) -> dict[str, Any]:
    many = {"response_type": "stream"} if READER_ASKS[subject] else {}
    return {"service": subject, "accounts": [READER_ACCOUNT], **many}


def _of_the_service(subject: str) -> dict[str, str]:
    return {"account": SERVICE_ACCOUNT, "subject": subject}
