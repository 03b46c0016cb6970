"""The page: static files at `/`, read once, sent with an entity tag."""

import hashlib
from functools import cache
from pathlib import Path

import msgspec
from litestar import Controller, Response

from service.http.guards import requires
from service.http.parameters import PagePath
from service.http.problems import RequestRefused
from service.http.request import ApiRequest, header
from service.http.responses import ApiResponse, refusals
from service.http.routes import get

FOLDER = Path(__file__).with_name("page")
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


class PageFile(msgspec.Struct, frozen=True):
    """One file with its type and entity tag."""

    content: bytes
    media_type: str
    tag: str


@cache
def page_files() -> dict[str, PageFile]:
    """Every file of the page by its path below the folder."""
    return {
        path.relative_to(FOLDER).as_posix(): _read(path)
        for path in sorted(FOLDER.rglob("*"))
        if path.suffix in TYPES and not path.name.endswith(".test.js")
    }


def _read(path: Path) -> PageFile:
    content = path.read_bytes()
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    return PageFile(content, TYPES[path.suffix], tag)


class PageController(Controller):
    """`/` and the files that it loads; no token is needed to read them, they hold no data."""

    tags = ("page",)
    include_in_schema = False

    @get("/", guards=[requires(None, any_query=True)], responses=refusals(guarded=False))
    async def index(self, request: ApiRequest) -> Response[bytes]:
        """The page."""
        return _answer(request, "index.html")

    @get(
        "/page/{path:path}",
        guards=[requires(None, any_query=True)],
        responses=refusals(guarded=False),
    )
    async def file(self, path: PagePath, request: ApiRequest) -> Response[bytes]:
        """One of its files."""
        return _answer(request, path.lstrip("/"))


def _answer(request: ApiRequest, path: str) -> Response[bytes]:
    found = page_files().get(path) if request.core.settings.ui.enabled else None
    if found is None:
        raise RequestRefused("not_found", "the page has no such file, or ui.enabled is false")
    headers = {"ETag": found.tag, "Cache-Control": "no-cache"}
    known = header(request.scope, b"if-none-match").decode("latin-1")
    if found.tag in known:
        return ApiResponse(b"", status_code=304, headers=headers, media_type=found.media_type)
    return ApiResponse(found.content, headers=headers, media_type=found.media_type)
