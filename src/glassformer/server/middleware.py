"""Which requests are accepted (host, key, size of the body), how errors and event streams are answered.

Every error has OpenAI's shape: {"error": {"message", "type", "param", "code"}}.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import json
import logging
from collections.abc import AsyncIterator, Awaitable
from typing import Any, TypeVar

from fastapi import FastAPI, Response
from fastapi import Request as HTTPRequest
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from glassformer.errors import GlassformerError, UsageError, one_line

_log = logging.getLogger(__name__)

T = TypeVar("T")
CHECK_EVERY = 0.1  # seconds between checks whether a client that waits for a whole answer is still connected
MAX_BODY_BYTES = 8 << 20
SOUND_PATH, MAX_SOUND_BYTES = "/v1/audio/", 25 << 20  # as OpenAI has it
OPEN_PATHS = ("/healthz", "/")  # they need no key: the page asks for it
OPEN_FOLDER = "/web/"
BODY_UNREADABLE = "There was an error parsing the body"  # FastAPI's message for all but bad JSON syntax
# A page of this server runs its own scripts only, sends requests to this server only, and cannot be framed.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "media-src blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
}


class APIError(Exception):
    """An error response. status: of HTTP. code: a word for programs."""

    def __init__(self, status: int, message: str, *, code: str | None = None, param: str | None = None):
        super().__init__(message)
        self.status, self.code, self.param = status, code, param

    @classmethod
    def of(cls, error: BaseException) -> APIError:
        """400 if the request was wrong, 500 if the server failed."""
        if isinstance(error, UsageError):
            return cls(400, str(error))
        what = str(error) if isinstance(error, GlassformerError) else "the model failed at this request"
        return cls(500, f"{what}; the server's log has more")

    def body(self) -> dict[str, Any]:
        """The body, in OpenAI's shape."""
        kinds = {401: "authentication_error", 404: "not_found_error", 503: "overloaded_error"}
        kind = kinds.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": one_line(str(self)), "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        """The HTTP response."""
        headers = {"WWW-Authenticate": "Bearer"} if self.status == 401 else None
        return JSONResponse(self.body(), status_code=self.status, headers=headers)


class Guard:
    """Checks host name, key and body size of each request, and adds the security headers to each response.

    Plain ASGI, because `app.middleware("http")` hides from the routes that a client disconnected.
    """

    def __init__(self, app: ASGIApp, api_key: str | None, local: bool):
        self.app, self.api_key, self.local = app, api_key, local

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        error = self._check(HTTPRequest(scope))
        await (error.response() if error else self.app)(scope, receive, send_with_headers)

    def _check(self, http: HTTPRequest) -> APIError | None:
        host = http.headers.get("host", "").lower()
        name = host if host.endswith("]") else host.rsplit(":", 1)[0]
        if self.local and not is_local(name.strip("[]")):  # DNS rebinding cannot fake an IP address
            return APIError(421, f"this server's name is localhost, not {host[:100]!r}; use http://localhost")
        path = http.url.path
        if self.api_key is not None and path not in OPEN_PATHS and not path.startswith(OPEN_FOLDER):
            given = http.headers.get("authorization", "")
            if not hmac.compare_digest(given.encode("utf-8", "replace"), f"Bearer {self.api_key}".encode()):
                return APIError(401, "send the server's key: Authorization: Bearer KEY", code="invalid_api_key")
        length = http.headers.get("content-length", "")
        if not length.isdigit() and http.method == "POST":
            return APIError(411, "a body of known length is needed (Content-Length)")
        most = MAX_SOUND_BYTES if path.startswith(SOUND_PATH) else MAX_BODY_BYTES
        if length and int(length) > most:
            return APIError(413, f"the body is larger than {most:,} bytes; shorten it")
        return None


def is_local(host: str) -> bool:
    """Whether an address is reached from this machine only.

    >>> is_local("127.0.0.1"), is_local("localhost"), is_local("0.0.0.0")
    (True, True, False)
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def add_error_handlers(app: FastAPI) -> None:
    """Answer every error in OpenAI's shape."""

    @app.exception_handler(APIError)
    async def api_error(http: HTTPRequest, error: APIError) -> Response:
        return error.response()

    @app.exception_handler(RequestValidationError)
    async def invalid_body(http: HTTPRequest, error: RequestValidationError) -> Response:
        message, param = validation_message(error.errors()[0])
        return APIError(400, message, param=param).response()

    @app.exception_handler(GlassformerError)
    async def library_error(http: HTTPRequest, error: GlassformerError) -> Response:
        answer = APIError.of(error)
        if answer.status >= 500:
            _log.error("%s", http.url.path, exc_info=error)
        return answer.response()

    @app.exception_handler(HTTPException)
    async def http_error(http: HTTPRequest, error: HTTPException) -> Response:
        message = str(error.detail)
        return APIError(error.status_code, _unreadable(error) if message == BODY_UNREADABLE else message).response()

    @app.exception_handler(Exception)
    async def server_error(http: HTTPRequest, error: Exception) -> Response:
        return APIError(500, "the server failed at this request; its log has more").response()


def _unreadable(error: HTTPException) -> str:
    """Why a body could not be read, where the JSON parser itself failed."""
    cause = error.__cause__
    if isinstance(cause, UnicodeDecodeError):
        return f"the body is not UTF-8 (byte {cause.start}); encode it so"
    if isinstance(cause, RecursionError):
        return "the body is nested too deeply; give flatter JSON"
    return f"the body cannot be read: {one_line(cause, most=200)}"


_EXPECTED = {
    "int_type": "a whole number",
    "int_parsing_size": "a whole number of 64 bits",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "a text",
    "list_type": "a list",
    **dict.fromkeys(("dict_type", "model_type", "model_attributes_type"), "an object"),
}
_MESSAGES = {
    **{kind: f"{{given}} is not {what}; give one" for kind, what in _EXPECTED.items()},
    "greater_than_equal": "{given} is out of range; use {ge} or more",
    "less_than_equal": "{given} is out of range; use {le} or less",
    "greater_than": "{given} is out of range; use more than {gt}",
    "less_than": "{given} is out of range; use less than {lt}",
    "too_long": "has {n:,} entries, and {max_length:,} are the most; shorten it",
    "too_short": "has {n:,} entries, and {min_length:,} are needed; add to it",
    "string_too_long": "has {n:,} characters, and {max_length:,} are the most; shorten it",
    "string_too_short": "has {n:,} characters, and {min_length:,} are needed; add to it",
    "literal_error": "{given} is not known; use {expected}",
    "missing": "is missing; it is needed",
    "extra_forbidden": "there is no such field here; leave it out",
    "string_unicode": "contains half a character (a lone surrogate); give text that UTF-8 can encode",
    "finite_number": "is not a finite number; give one",
}
"""Messages by pydantic's kind of error; for other kinds its message is one of ours (the files of schemas)."""


def validation_message(error: Any) -> tuple[str, str | None]:
    """One error of pydantic as a plain line, and its field."""
    kind, context, where = error["type"], error.get("ctx", {}), error["loc"]
    if kind == "json_invalid":
        return f"the body is not JSON: {context['error']} (at character {where[-1]})", None
    if kind == "missing" and where == ("body",):
        return "the body is empty; send a JSON object", None
    if _EXPECTED.get(kind) == "an object" and where == ("body",):
        return "the body is not a JSON object; send one, with Content-Type: application/json", None
    field = ".".join(str(part) for part in [*where, *([context["param"]] if "param" in context else [])])
    field = field.removeprefix("body").removeprefix("query").removeprefix(".")
    message, given = str(error["msg"]).removeprefix("Value error, "), error["input"]
    if kind in _MESSAGES:
        n = len(given) if isinstance(given, str | list | dict) else 0
        message = _MESSAGES[kind].format(**context | {"n": n, "given": _shown(given)})
    return f"{field}: {message}" if field else message, field or None


def _shown(given: Any) -> str:
    """A value as JSON, cut to fit into a line."""
    try:
        return one_line(json.dumps(given, ensure_ascii=False), most=60)
    except (TypeError, ValueError, RecursionError):
        return "this"


async def unless_disconnected(work: Awaitable[T], http: HTTPRequest) -> T:
    """The result of some work; the work is cancelled if the client disconnects first."""

    async def disconnected() -> None:
        while not await http.is_disconnected():
            await asyncio.sleep(CHECK_EVERY)

    result, gone = asyncio.ensure_future(work), asyncio.ensure_future(disconnected())
    await asyncio.wait([result, gone], return_when=asyncio.FIRST_COMPLETED)
    gone.cancel()
    if not result.done():
        result.cancel()
        raise APIError(499, "the client disconnected")
    return result.result()


def event_stream(lines: AsyncIterator[str]) -> StreamingResponse:
    """A response of server-sent events (`event_line`)."""
    return StreamingResponse(lines, media_type="text/event-stream", headers={"Cache-Control": "no-store"})


def event_line(body: Any) -> str:
    """One server-sent event."""
    return f"data: {json.dumps(body, ensure_ascii=False, allow_nan=False)}\n\n"
