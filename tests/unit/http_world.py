"""The HTTP application over a core that says what a test tells it to say."""

import asyncio
from collections.abc import Callable, Sequence
from functools import cache
from types import SimpleNamespace
from typing import Any, cast

from litestar import Litestar
from msgspec import Raw

from projections.read_models.views import PlanView, TaskView, moment
from service.core.answers import Claim, ClaimRequest, OwnerAnswer
from service.core.core import Core
from service.http.access import Access
from service.http.app import create_app, in_front, make_routes
from service.http.deadlines import CALL_LIMITS
from service.http.front import Front
from service.http.instance_parts import InstanceParts
from service.http.quotas import Quotas
from service.http.refused_tokens import RefusalLimits, RefusedTokens
from service.http.request import CLIENT
from service.ops.status import Check
from service.principals.tokens import Tokens
from service.settings.config import HttpSettings, Settings
from service.signals.audit.trail import Audit
from service.signals.metrics.registry import Metrics
from service.signals.visitors import Visitors
from streams.log import Origin
from streams.plan.commands import OwnerCommand
from streams.plan.state import Plan

HOST = "testserver.local"  # as Litestar's test client calls an application
SETTINGS = Settings(http=HttpSettings(allowed_hosts=(HOST,)))
TASK = TaskView(
    plan_id="p", task_id="t", kind="echo", type="worker", status="RUNNING", attempt=1, retry=0,
    lost=0, owner="w1", lease_until=moment(2e9), claimable_at=None, priority=0,
    input=Raw(b"{}"), output=Raw(b"null"), error_type=None, error_message=None,
    feedback=Raw(b"null"), depends_on=(), join="all", quorum=None, on_failure="fail_plan",
    max_retries=3, max_lost_leases=3, timeout_s=120, lease_s=15, target=None, sequence=3,
    created_at=moment(1e9), updated_at=moment(1e9),
)  # fmt: skip
PLAN = PlanView(
    plan_id="p", name="", status="RUNNING", priority=0, labels={}, context=Raw(b"{}"),
    created_at=moment(1e9), finished_at=None, sequence=3, counts={},
)  # fmt: skip
CLAIM = Claim(
    plan_id="p", task_id="t", attempt=1, fencing_token=42, kind="echo", type="worker",
    input=Raw(b"{}"), context=Raw(b"{}"), dependencies={}, feedback=Raw(b"null"), retry=0,
    lease_until=moment(2e9), lease_s=15, timeout_s=120,
)  # fmt: skip
ACCEPTED = OwnerAnswer(
    status="accepted", sequence=3, task=TASK, lease_until=TASK.lease_until, cancel_requested=False
)


class FakeCore:
    """Answers every question with ``answer`` (raised if it is an exception); remembers them."""

    def __init__(self, answer: object = ACCEPTED, settings: Settings | None = None) -> None:
        self.answer = answer
        self.settings = settings or SETTINGS
        self.visitors = Visitors()
        self.metrics = Metrics()
        self.audited: list[tuple[str, dict[str, Any]]] = []
        self.audit = SimpleNamespace(emit=lambda event, **said: self.audited.append((event, said)))
        tokens_file = self.settings.auth.tokens_file
        self.tokens = Tokens(tokens_file) if tokens_file is not None else None
        self.feed: Any = None
        self.doctor: Any = None
        self.spans = None
        self.database = None
        self.instance_id = "here"
        self.asked: list[tuple[Any, Origin]] = []
        self.limits = CALL_LIMITS
        self.checks = [Check("log", ok=True, detail="connected")]
        self.claiming: asyncio.Future[list[Claim]] | None = None
        self.claim_asked = asyncio.Event()
        self.refusals = RefusalLimits(longest_pause_s=0)
        self.plans: dict[str, Plan] = {}
        self.elsewhere: dict[str, Plan] = {}

    def app(self) -> Front:
        """The application; its routes are made once for all tests."""
        return in_front(_routes(), self.parts(), self.limits)

    def own_app(self) -> Front:
        """The application with routes of its own."""
        parts = self.parts()
        return create_app(parts.core, parts.operations, parts.access, self.limits)

    def parts(self) -> InstanceParts:
        """What the application answers from."""
        health = SimpleNamespace(readiness=lambda: self.checks, status=lambda: self.answer)
        operations: Any = SimpleNamespace(health=health, doctor=self.doctor)
        refused = RefusedTokens(self.metrics, cast("Audit", self.audit), self.refusals)
        access = Access(self.tokens, refused)
        return InstanceParts(cast("Core", self), operations, access, Quotas(self.settings.http))

    def _say(self, what: object, origin: Origin) -> object:
        self.asked.append((what, origin))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    async def submit(self, plan_id: str, plan: object, origin: Origin) -> object:
        return self._say((plan_id, plan), origin)

    async def operate(self, command: object, origin: Origin) -> object:
        return self._say(command, origin)

    async def retry(self, command: object, origin: Origin) -> object:
        return self._say(command, origin)

    async def own(self, command: object, origin: Origin) -> object:
        return self._say(command, origin)

    async def own_many(self, words: Sequence[OwnerCommand], origin: Origin) -> list[Any]:
        answers = self.answer if isinstance(self.answer, list) else [self.answer] * len(words)
        self.asked += [(word, origin) for word in words]
        return cast("list[Any]", answers)

    async def abandon(self, claims: Sequence[Claim], owner: str, origin: Origin) -> None:
        self.asked += [((owner, claim), origin) for claim in claims]

    async def claim(self, request: ClaimRequest, origin: Origin) -> object:
        self.claim_asked.set()
        if self.claiming is not None:
            self.asked.append((request, origin))
            return await self.claiming
        return self._say(request, origin)

    async def claim_chosen(self, *asked: Any) -> object:
        return self._say(asked[2], asked[3])

    def knows(self, plan_id: str) -> Plan | None:
        return self.plans.get(plan_id)

    async def load(self, plan_id: str) -> Plan | None:
        return self.plans.get(plan_id) or self.elsewhere.get(plan_id)

    async def visible(self, min_sequence: int | None) -> None:
        self._say(min_sequence, Origin())


@cache
def _routes() -> Litestar:
    """The routes, made once: that takes 50 ms, which is most of what these tests compute."""
    return make_routes()


class Caller:
    """Speaks ASGI to the application, and can hang up."""

    def __init__(
        self,
        core: FakeCore,
        path: str,
        *parts: bytes,
        ends: bool = True,
        headers: Sequence[tuple[bytes, bytes]] = (),
        taken: asyncio.Event | None = None,
    ) -> None:
        """``taken``: the bytes of the answer are not taken before it is set."""
        self._taken = taken
        self._messages: asyncio.Queue[Any] = asyncio.Queue()
        for n, part in enumerate(parts, 1):
            more = n < len(parts) or not ends
            self._messages.put_nowait({"type": "http.request", "body": part, "more_body": more})
        self._sent: list[Any] = []
        self._gone = False
        self._act: Callable[[], object] | None = None
        self._scope: Any = {
            "type": "http", "method": "POST", "path": path, "raw_path": path.encode(),
            "query_string": b"",
            "headers": [(b"host", HOST.encode()), (b"content-type", b"application/json"), *headers],
            "http_version": "1.1", "server": (HOST, 80), "scheme": "http", "root_path": "",
            "state": {}, "extensions": {CLIENT: self},
        }  # fmt: skip
        self.running = asyncio.create_task(self._run(core))

    async def _run(self, core: FakeCore) -> None:
        async def send(message: Any) -> None:
            if self._taken is not None and message["type"] == "http.response.body":
                await self._taken.wait()
            self._sent.append(message)

        await core.app()(self._scope, self._messages.get, send)

    def send(self, part: bytes) -> None:
        """Send the last part of the body."""
        self._messages.put_nowait({"type": "http.request", "body": part, "more_body": False})

    def hang_up(self) -> None:
        self._messages.put_nowait({"type": "http.disconnect"})
        self._gone = True
        if self._act is not None:
            self._act()

    def is_gone(self) -> bool:
        """See `service.http.request.ClientWatch`."""
        return self._gone

    def when_gone(self, act: Callable[[], object] | None) -> None:
        """See `service.http.request.ClientWatch`."""
        self._act = act

    @property
    def status(self) -> int:
        return int(self._sent[0]["status"])

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self._sent)
