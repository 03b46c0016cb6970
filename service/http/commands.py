"""What changes plans: submitting them, and what operators may say about them."""

from msgspec.structs import asdict

from projections.read_models.views import PlanView, TaskView
from service.core.results import Submission
from service.http.plan_ids import new_plan_id, plan_id_of_key
from service.http.problems import Refusal
from service.http.reply import Reply, show, tell
from service.http.routes import LOG_TROUBLE, Call, route
from service.http.schemas import PlanBody, ReasonBody, TaskBody
from streams.plan.commands import Cancel, Pause, Resume, Retry
from streams.plan.events import Submitted, TaskSpec

MAX_KEY = 255


@route(
    "POST /v1/plans",
    asks=PlanBody,
    shows=Submission,
    refuses=("plan_exists", *LOG_TROUBLE),
    role="operator",
    status={201: "The plan is in the log", 200: "The same plan was there before"},
    headers={"Idempotency-Key": "Stands for the plan's id when the body has none"},
)
async def submit_plan(call: Call[PlanBody]) -> Reply:
    """Submit a plan; saying the same again is not an error."""
    body = call.asked
    plan = Submitted(
        name=body.name,
        context=body.context,
        labels=body.labels,
        priority=body.priority,
        tasks=tuple(map(_spec, body.tasks)),
    )
    plan_id = body.id or _id_from(call.headers.get(b"idempotency-key")) or new_plan_id()
    answer = await call.core.submit(plan_id, plan, call.origin(begins=True))
    if isinstance(answer, Submission):
        return show(answer, 201 if answer.created else 200)
    return tell(answer)


def _spec(task: TaskBody) -> TaskSpec:
    return TaskSpec(**asdict(task))


def _id_from(key: bytes | None) -> str | None:
    if key is not None and not 1 <= len(key) <= MAX_KEY:
        raise Refusal("invalid_request", f"Idempotency-Key: it has 1 to {MAX_KEY} characters")
    return None if key is None else plan_id_of_key(key)


async def _operate(call: Call[ReasonBody], command: type[Pause | Resume | Cancel]) -> Reply:
    asked = command(plan_id=call.plan_id, reason=call.asked.reason)
    answer = await call.core.operate(asked, call.origin())
    return show(answer) if isinstance(answer, PlanView) else tell(answer)


_OPERATOR = ("not_found", "not_allowed", *LOG_TROUBLE)


@route(
    "POST /v1/plans/{plan_id}/pause",
    asks=ReasonBody,
    shows=PlanView,
    refuses=_OPERATOR,
    role="operator",
    optional_body=True,
)
async def pause_plan(call: Call[ReasonBody]) -> Reply:
    """Stop claims; running tasks may end."""
    return await _operate(call, Pause)


@route(
    "POST /v1/plans/{plan_id}/resume",
    asks=ReasonBody,
    shows=PlanView,
    refuses=_OPERATOR,
    role="operator",
    optional_body=True,
)
async def resume_plan(call: Call[ReasonBody]) -> Reply:
    """Let claims go on."""
    return await _operate(call, Resume)


@route(
    "POST /v1/plans/{plan_id}/cancel",
    asks=ReasonBody,
    shows=PlanView,
    refuses=_OPERATOR,
    role="operator",
    optional_body=True,
)
async def cancel_plan(call: Call[ReasonBody]) -> Reply:
    """End every unfinished task of the plan at once."""
    return await _operate(call, Cancel)


@route(
    "POST /v1/plans/{plan_id}/tasks/{task_id}/retry",
    asks=ReasonBody,
    shows=TaskView,
    refuses=_OPERATOR,
    role="operator",
    optional_body=True,
)
async def retry_task(call: Call[ReasonBody]) -> Reply:
    """Give a FAILED task fresh budgets."""
    command = Retry(plan_id=call.plan_id, task_id=call.task_id, reason=call.asked.reason)
    answer = await call.core.retry(command, call.origin())
    return show(answer) if isinstance(answer, TaskView) else tell(answer)


ROUTES = (submit_plan, pause_plan, resume_plan, cancel_plan, retry_task)
