"""The HTTP application: its controllers over one core, and what all of them share."""

from litestar import Litestar
from litestar.datastructures import ResponseHeader

from service import VERSION
from service.core.core import Core
from service.http.access import Access
from service.http.attempts import AttemptController
from service.http.audit import AuditController
from service.http.batches import BatchController
from service.http.claims import ChosenTaskController, ClaimController
from service.http.deadlines import CALL_LIMITS, CallLimits
from service.http.events import EventController
from service.http.executions import ExecutionController
from service.http.front import Front
from service.http.instance_parts import InstanceParts
from service.http.openapi import StructSchemas, document
from service.http.operations import InstanceController, MetricController, ProbeController
from service.http.origin_check import OriginCheck
from service.http.owners import OwnerController
from service.http.page import PageController
from service.http.plans import PlanController
from service.http.quotas import Quotas
from service.http.request import ApiRequest
from service.http.responses import ApiResponse, problem_answer
from service.http.session import SessionController
from service.http.strict_json import MAX_BODY_BYTES, StrictBody
from service.http.tasks import TaskController
from service.http.why import WhyController
from service.ops.operations import Operations

CONTROLLERS = (
    PlanController,
    TaskController,
    AttemptController,
    ClaimController,
    ChosenTaskController,
    OwnerController,
    BatchController,
    ExecutionController,
    AuditController,
    EventController,
    ProbeController,
    MetricController,
    InstanceController,
    SessionController,
    WhyController,
    PageController,
)
NAMES = [
    ResponseHeader(name=name, value="", description=meaning, documentation_only=True)
    for name, meaning in (
        ("X-Request-Id", "the request's id: its own, or one made here"),
        ("X-Trace-Id", "the trace that the request belongs to"),
    )
]


def create_app(
    core: Core, operations: Operations, access: Access, limits: CallLimits = CALL_LIMITS
) -> Front:
    """The application over ``core``, for those whom ``access`` permits."""
    parts = InstanceParts(core, operations, access, Quotas(core.settings.http))
    return in_front(make_routes(), parts, limits)


def make_routes() -> Litestar:
    """The routes; each request brings the `InstanceParts` that it is answered from."""
    schemas = StructSchemas()
    return Litestar(
        route_handlers=CONTROLLERS,
        dto=StrictBody,
        return_dto=None,
        request_class=ApiRequest,
        request_max_body_size=MAX_BODY_BYTES,
        response_class=ApiResponse,
        response_headers=NAMES,
        exception_handlers={Exception: problem_answer},
        openapi_config=document(VERSION, schemas),
        plugins=[schemas],
        logging_config=None,
    )


def in_front(routes: Litestar, parts: InstanceParts, limits: CallLimits = CALL_LIMITS) -> Front:
    """What every request passes before it comes to ``routes``."""
    core = parts.core
    origin_check = OriginCheck(
        tokens=parts.access.tokens is not None,
        allowed_hosts=core.settings.http.allowed_hosts,
        on_proxy=core.visitors.came_through_proxy,
    )
    return Front(routes, parts, origin_check, limits)
