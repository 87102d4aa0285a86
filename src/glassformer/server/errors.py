"""Errors in OpenAI's shape: {"error": {"message", "type", "param", "code"}}."""

from __future__ import annotations

import json
from typing import Any

from fastapi.responses import JSONResponse

from glassformer.errors import GlassformerError, UsageError, one_line


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
    return {"error": {"message": one_line(message), "type": kind, "param": param, "code": code}}


def error_response(status: int, message: str, *, code: str | None = None, param: str | None = None) -> JSONResponse:
    """A response that says what is wrong."""
    return JSONResponse(
        error_body(status, message, code=code, param=param),
        status_code=status,
        headers={"WWW-Authenticate": "Bearer"} if status == 401 else None,
    )


def told(errors: Any) -> tuple[str, str | None]:
    """The first of pydantic's complaints as one line in plain words, and the field it is about."""
    first = errors[0]
    kind, context = first["type"], first.get("ctx", {})
    if kind == "json_invalid":
        return f"the body is not JSON: {context['error']} (at character {first['loc'][-1]})", None
    if kind == "missing" and first["loc"] == ("body",):
        return "the body is empty; send a JSON object", None
    if kind in ("model_type", "model_attributes_type", "dict_type") and first["loc"] == ("body",):
        return "the body is no JSON object; send one, with Content-Type: application/json", None
    where = ".".join(str(part) for part in [*first["loc"], *([context["param"]] if "param" in context else [])])
    where = where.removeprefix("body").removeprefix("query").removeprefix(".")
    message = _in_words(kind, context, first["input"]) or str(first["msg"]).removeprefix("Value error, ")
    return f"{where}: {message}" if where else message, where or None


def _in_words(kind: str, context: dict[str, Any], given: Any) -> str | None:
    """What is wrong with a value, or None where pydantic's message is one of ours."""
    for limit, word in (("ge", "or more"), ("le", "or less")):
        if limit in context:
            return f"{_shown(given)} is out of range; use {context[limit]} {word}"
    for limit, word in (("gt", "more than"), ("lt", "less than")):
        if limit in context:
            return f"{_shown(given)} is out of range; use {word} {context[limit]}"
    if kind in _NEEDED:
        return f"{_shown(given)} is not {_NEEDED[kind]}; give one"
    n = len(given) if isinstance(given, str | list | dict) else 0
    if kind in ("too_long", "string_too_long"):
        return f"has {n:,} {_PARTS[kind]}, and {context['max_length']:,} are the most; shorten it"
    if kind in ("too_short", "string_too_short"):
        return f"has {n:,} {_PARTS[kind]}, and {context['min_length']:,} are needed; add to it"
    if kind == "literal_error":
        return f"{_shown(given)} is not known; use {context['expected']}"
    return {
        "missing": "is missing; it is needed",
        "extra_forbidden": "there is no such field here; leave it out",
        "string_unicode": "holds half a character (a lone surrogate); give text that UTF-8 can hold",
        "finite_number": "is no finite number; give one",
    }.get(kind)


_PARTS = {
    "too_long": "entries",
    "too_short": "entries",
    "string_too_long": "characters",
    "string_too_short": "characters",
}
_NEEDED = {
    "int_type": "a whole number",
    "int_parsing_size": "a whole number of 64 bits",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "a text",
    "list_type": "a list",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
}


def _shown(given: Any) -> str:
    """A value as JSON, cut to what fits into a line."""
    try:
        return one_line(json.dumps(given, ensure_ascii=False), most=60)
    except (TypeError, ValueError, RecursionError):
        return "this"


def unreadable(cause: BaseException | None) -> str:
    """Why a body could not be read, where the JSON parser itself gave up."""
    if isinstance(cause, UnicodeDecodeError):
        return f"the body is not UTF-8 (byte {cause.start}); encode it so"
    if isinstance(cause, RecursionError):
        return "the body is nested too deeply; give flatter JSON"
    return f"the body cannot be read: {one_line(cause, most=200)}"
