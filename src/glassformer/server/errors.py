"""Errors in OpenAI's shape: {"error": {"message", "type", "param", "code"}}."""

from __future__ import annotations

from typing import Any

from fastapi.responses import JSONResponse

from glassformer.errors import GlassformerError, UsageError


class Refused(Exception):
    """A request that is answered with an error. status: of HTTP. code: a word for programs."""

    def __init__(self, status: int, message: str, *, code: str | None = None, param: str | None = None):
        super().__init__(message)
        self.status, self.code, self.param = status, code, param

    def body(self) -> dict[str, Any]:
        """In OpenAI's shape."""
        return error_body(self.status, str(self), code=self.code, param=self.param)

    def answer(self) -> JSONResponse:
        """As a response."""
        return error_response(self.status, str(self), code=self.code, param=self.param)


def refusal_of(error: BaseException) -> Refused:
    """What a client is answered when its request failed: what was wrong with it, or that the fault is ours."""
    if isinstance(error, UsageError):
        return Refused(400, str(error))
    what = str(error) if isinstance(error, GlassformerError) else "the model failed at this request"
    return Refused(500, f"{what}; the server's log says more")


def error_body(status: int, message: str, *, code: str | None = None, param: str | None = None) -> dict[str, Any]:
    """What is wrong, as OpenAI writes it."""
    kinds = {401: "authentication_error", 404: "not_found_error", 413: "invalid_request_error", 503: "overloaded_error"}
    kind = kinds.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def error_response(status: int, message: str, *, code: str | None = None, param: str | None = None) -> JSONResponse:
    """A response that says what is wrong."""
    return JSONResponse(
        error_body(status, message, code=code, param=param),
        status_code=status,
        headers={"WWW-Authenticate": "Bearer"} if status == 401 else None,
    )


def told(errors: Any) -> tuple[str, str | None]:
    """The first of pydantic's complaints as one line, and the field it is about."""
    first = errors[0]
    if first["type"] == "json_invalid":
        return f"the body is not JSON: {first['ctx']['error']}", None
    where = ".".join(str(part) for part in first["loc"] if part != "body" and "[" not in str(part))
    message = str(first["msg"]).removeprefix("Value error, ")
    return f"{where}: {message}" if where else message, where or None
