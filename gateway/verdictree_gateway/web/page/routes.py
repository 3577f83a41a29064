"""The page's files, served as they are in the package, under a policy that lets the browser load nothing else."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

_SCRIPTS = (
    "page.js",
    "elements.js",
    "names.js",
    "verdict.js",
    "tree.js",
    "windows.js",
    "comparison.js",
    "thresholds.js",
)
_FILES = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page/page.css": ("page.css", "text/css; charset=utf-8"),
    **{f"/page/{name}": (name, "text/javascript; charset=utf-8") for name in _SCRIPTS},
}
# Trusted Types make the browser refuse to parse a text as HTML, should a later change of the scripts try to.
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-cache",  # the files change with the gateway's version, their addresses do not
}


def routes() -> list[Route]:
    """The page and what it loads; they hold no secret, so nobody's key is asked for."""
    return [Route(path, _served(name, kind), methods=["GET"]) for path, (name, kind) in _FILES.items()]


def _served(name: str, kind: str) -> Callable[[Request], Awaitable[Response]]:
    content = files("verdictree_gateway.web.page").joinpath(name).read_bytes()

    async def serve(_request: Request) -> Response:
        return Response(content, 200, _HEADERS, kind)

    return serve
