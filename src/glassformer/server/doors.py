"""Who comes in, and how errors go out."""

from __future__ import annotations

import hmac
import logging

from fastapi import FastAPI, Response
from fastapi import Request as HTTPRequest
from fastapi.exceptions import RequestValidationError
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from glassformer.errors import GlassformerError
from glassformer.server.errors import Refused, error_response, refusal_of, told, unreadable
from glassformer.server.serving import is_local

_log = logging.getLogger(__name__)

MOST_BYTES = 8 << 20  # of a body
OPEN_PATHS = ("/healthz", "/")  # that need no key: the page asks for it
OPEN_FOLDER = "/web/"
BODY_UNREADABLE = "There was an error parsing the body"  # what FastAPI says of all but bad JSON syntax
# Whatever a browser shows of this server runs its own scripts alone, asks it alone, and is framed by nobody.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
}


class Guard:
    """Who may ask, under which name of this machine, and how much at once.

    It is plain ASGI and no `app.middleware("http")`: that one hands every piece of a stream on through a queue of its
    own, and hides from those behind it that a client went away.
    """

    def __init__(self, app: ASGIApp, api_key: str | None, local: bool):
        self.app, self.api_key, self.local = app, api_key, local

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        await (self._refusal(HTTPRequest(scope)) or self.app)(scope, receive, send_guarded)

    def _refusal(self, http: HTTPRequest) -> Response | None:
        host = http.headers.get("host", "").lower()
        name = host if host.endswith("]") else host.rsplit(":", 1)[0]
        if self.local and not is_local(name.strip("[]")):  # a number cannot be made to mean another machine
            return error_response(421, f"this server answers as localhost and not as {host[:100]!r}")
        path = http.url.path
        if self.api_key is not None and path not in OPEN_PATHS and not path.startswith(OPEN_FOLDER):
            given = http.headers.get("authorization", "")
            if not hmac.compare_digest(given.encode("utf-8", "replace"), f"Bearer {self.api_key}".encode()):
                return error_response(401, "send the server's key: Authorization: Bearer KEY", code="invalid_api_key")
        length = http.headers.get("content-length", "")
        if not length.isdigit() and http.method == "POST":
            return error_response(411, "a body of known length is needed (Content-Length)")
        if length and int(length) > MOST_BYTES:
            return error_response(413, f"the body is larger than {MOST_BYTES:,} bytes; shorten it")
        return None


def add_errors(app: FastAPI) -> None:
    """Every error in OpenAI's shape."""

    @app.exception_handler(Refused)
    async def refused(http: HTTPRequest, error: Refused) -> Response:
        return error.answer()

    @app.exception_handler(RequestValidationError)
    async def invalid(http: HTTPRequest, error: RequestValidationError) -> Response:
        message, param = told(error.errors())
        return error_response(400, message, param=param)

    @app.exception_handler(GlassformerError)
    async def ours(http: HTTPRequest, error: GlassformerError) -> Response:
        refused = refusal_of(error)
        if refused.status >= 500:
            _log.error("%s", http.url.path, exc_info=error)
        return refused.answer()

    @app.exception_handler(HTTPException)
    async def other(http: HTTPRequest, error: HTTPException) -> Response:
        message = str(error.detail)
        if message == BODY_UNREADABLE:
            message = unreadable(error.__cause__)
        return error_response(error.status_code, message)

    @app.exception_handler(Exception)
    async def fault(http: HTTPRequest, error: Exception) -> Response:
        return error_response(500, "the server made a mistake; its log says more")
