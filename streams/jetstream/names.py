"""How streams, subjects and JetStream's questions are called on the server that Holdfast uses.

Everywhere else a subject is as `streams.subjects` builds it. Here a prefix (``nats.prefix``) comes
before it on the way out and goes on the way in, so that several Holdfasts share one account; a
JetStream domain (``nats.domain``) has an API of its own, ``$JS.<domain>.API``.
"""

import msgspec

PREFIX = r"^([A-Za-z0-9][A-Za-z0-9_-]{0,31})?\Z"
DOMAIN = r"^([A-Za-z0-9_-]{1,64})?\Z"
# Their subjects would be among those of a Holdfast without a prefix.
_TAKEN = {"plans", "audit", "snapshots"}


class Names(msgspec.Struct, frozen=True):
    """What stands before names; both empty: ``PLANS``, ``plans.>`` and ``$JS.API``."""

    prefix: str = ""
    domain: str = ""

    @property
    def plans_stream(self) -> str:
        """The name of the log's stream."""
        return f"{self.prefix}-PLANS" if self.prefix else "PLANS"

    @property
    def audit_stream(self) -> str:
        """The name of the audit trail's stream."""
        return f"{self.prefix}-AUDIT" if self.prefix else "AUDIT"

    @property
    def snapshots_stream(self) -> str:
        """The name of the stream with snapshots of the read models."""
        return f"{self.prefix}-SNAPSHOTS" if self.prefix else "SNAPSHOTS"

    def api(self, question: str) -> str:
        """The subject on which JetStream is asked ``question`` (``STREAM.INFO.…``)."""
        return f"$JS.{self.domain}.API.{question}" if self.domain else f"$JS.API.{question}"

    @property
    def begin(self) -> str:
        """What stands before each of Holdfast's subjects on the server."""
        return f"{self.prefix}." if self.prefix else ""

    def outside(self, subject: str) -> str:
        """``subject`` (or a filter) as the server knows it."""
        return f"{self.begin}{subject}"

    def inside(self, subject: str) -> str:
        """A subject of the server as Holdfast knows it; one without the prefix stays as it is."""
        return subject.removeprefix(self.begin)

    def complaint(self, url: str) -> tuple[str, str] | None:
        """The field that cannot be so with the server ``url`` ("": embedded), and why."""
        if self.prefix in _TAKEN:
            return (
                "prefix",
                "must not be plans, audit or snapshots: a Holdfast without a prefix uses them",
            )
        for field in ("prefix", "domain"):
            if getattr(self, field) and not url:
                return field, "is for an external server and needs nats.url"
        return None


PLAIN = Names()
