"""The HTTP application: every route bound to one core."""

from importlib.metadata import PackageNotFoundError, version
from typing import Any

from litestar import Litestar, Request, Response, Router
from litestar.datastructures import State

from service.core.core import Core
from service.http import commands, leases, ops, queries
from service.http.access import Access, read_tokens
from service.http.events import all_events, plan_events
from service.http.openapi import Schemas, complete, document, operation_of
from service.http.reply import tell
from service.http.routes import Route, litestar_handler
from service.http.tracing import name_answer

ROUTES: tuple[Route[Any], ...] = (
    *commands.ROUTES,
    *leases.ROUTES,
    *queries.ROUTES,
    *ops.ROUTES,
)


def create_app(core: Core) -> Litestar:
    """The application over ``core``. Raises ConfigError for a tokens file that cannot be used."""
    tokens_file = core.settings.auth.tokens_file
    access = Access(read_tokens(tokens_file) if tokens_file else None)
    schemas = Schemas(ROUTES)
    app = Litestar(
        route_handlers=[
            *(litestar_handler(row, core, access, operation_of(row, schemas)) for row in ROUTES),
            Router("/", route_handlers=[all_events, plan_events], guards=[access.guard]),
        ],
        state=State({"core": core}),
        before_send=[name_answer],
        exception_handlers={Exception: _tell},
        openapi_config=document(_version()),
        logging_config=None,
    )
    complete(app.openapi_schema, schemas)
    return app


class _Told(Response[bytes]):
    """A problem where Litestar expects a response of its own kind."""

    def __init__(self, error: Exception) -> None:
        super().__init__(content=b"")
        self._reply = tell(error)

    def to_asgi_response(self, *_: Any, **__: Any) -> Any:  # noqa: ANN401 - Litestar's signature
        """The ASGI application that is the answer."""
        return self._reply


def _tell(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    del request
    return _Told(error)


def _version() -> str:
    try:
        return version("holdfast")
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "0.1.0"
