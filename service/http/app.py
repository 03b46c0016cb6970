"""The HTTP application: its controllers over one core, and what all of them share."""

from litestar import Litestar
from litestar.datastructures import ResponseHeader, State

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
    schemas = StructSchemas()
    app = Litestar(
        route_handlers=CONTROLLERS,
        state=state_of(core, operations, access),
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
    return in_front(app, core, access, limits)


def state_of(core: Core, operations: Operations, access: Access) -> State:
    """What requests, guards and bodies look up."""
    return State(
        {
            "core": core,
            "operations": operations,
            "access": access,
            "root_path": core.settings.http.root_path,
            "knows": core.knows,
            "load": core.load,
            "quotas": Quotas(core.settings.http),
        }
    )


def in_front(app: Litestar, core: Core, access: Access, limits: CallLimits = CALL_LIMITS) -> Front:
    """What every request passes before it comes to ``app``."""
    return Front(
        app,
        core,
        OriginCheck(
            tokens=access.tokens is not None,
            allowed_hosts=core.settings.http.allowed_hosts,
            on_proxy=core.visitors.came_through_proxy,
        ),
        limits,
    )
