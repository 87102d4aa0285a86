"""Which fields a body may have. Each is one of three, and everything else is refused by its name:

    applied     a field of the body in schemas.py
    harmless    about the client, the bill or the speed, and not about the answer: taken and passed over
    inert       not done here, and so it may have only the values that ask for nothing

https://platform.openai.com/docs/api-reference
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic_core import PydanticCustomError

from glassformer.errors import did_you_mean, one_line

HARMLESS = frozenset(
    {
        "user",
        "metadata",
        "safety_identifier",
        "service_tier",
        "prompt_cache_key",
        "prompt_cache_retention",
        "prediction",  # a guess at the answer, to be faster
        "parallel_tool_calls",  # there are no tools
    }
)

PENALTY = "use repetition_penalty (1 is off)"
TOOLS = "describe in the messages what the model should know of them"
INERT: dict[str, tuple[tuple[Any, ...], str]] = {
    "presence_penalty": ((0,), PENALTY),
    "frequency_penalty": ((0,), PENALTY),
    "suffix": (("",), "put all of the text into prompt"),
    "store": ((False,), "answers are not kept; leave it out"),
    "tools": (([],), TOOLS),
    "tool_choice": (("none", "auto"), TOOLS),
    "functions": (([],), TOOLS),
    "function_call": (("none", "auto"), TOOLS),
    "response_format": (({"type": "text"},), "ask for the format in the messages"),
    "modalities": ((["text"],), "text is read and written"),
    "audio": ((), "text is read and written"),
    "reasoning_effort": (("none",), "leave it out"),
    "verbosity": ((), "say in the messages how long the answer shall be"),
    "web_search_options": ((), "nothing is looked up; put what is needed into the messages"),
}
INERT_IN_MESSAGES: dict[str, tuple[tuple[Any, ...], str]] = {
    "name": ((), "write into content who speaks"),
    "tool_calls": (([],), "write into content what was called"),
    "tool_call_id": ((), "write into content whose result it is"),
    "function_call": ((), "write into content what was called"),
    "refusal": (("",), "write it into content"),
    "annotations": (([],), "write them into content"),
    "audio": ((), "text is read and written"),
    "reasoning_content": (("",), "write it into content"),
}


def own_fields(given: Any, applied: Iterable[str], inert: dict[str, Any], harmless: Iterable[str] = ()) -> Any:
    """A body with the fields that are applied, and no others; null is a field that is not given.

    Raises:
        PydanticCustomError: a field is not known, or asks for what is not done here.
    """
    if not isinstance(given, dict):
        return given  # for pydantic to complain about
    known = {*applied, *inert, *harmless}
    for name, value in given.items():
        if name not in known:
            raise refused(name, f"there is no such field here; {did_you_mean(name, known)}")
        if name in inert and value is not None:
            values, instead = inert[name]
            if value not in values:
                raise refused(name, f"is not supported; {instead}")
    return {name: value for name, value in given.items() if name in set(applied)}


def refused(name: str, message: str) -> PydanticCustomError:
    """What is wrong with a field, for a validator of the whole body to raise."""
    return PydanticCustomError("refused", "{message}", {"message": message, "param": one_line(name) or "''"})
