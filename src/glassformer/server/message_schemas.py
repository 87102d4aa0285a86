"""The turns of a chat, the tools that it may call, and JSON schemas. https://platform.openai.com/docs/api-reference"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from glassformer.server.schemas import MAX_TEXTS, Strict, Text, field_error, shape

MAX_TOOLS = 128
MAX_SCHEMA = 1 << 16  # characters of a JSON schema

INERT_IN_MESSAGES: dict[str, tuple[tuple[Any, ...], str]] = {
    "name": ((), "write into content who speaks"),
    "function_call": ((), "write into content what was called"),
    "refusal": (("",), "write it into content"),
    "annotations": (([],), "write them into content"),
    "audio": ((), "text is read and written"),
    "reasoning_content": (("",), "write it into content"),
}


class Part(Strict):
    """A part of a message's content."""

    type: Literal["text"]
    text: Text


class FunctionCall(Strict):
    """What a call in an earlier answer called. arguments: a JSON object as a text."""

    name: Annotated[str, Field(min_length=1, max_length=64)]
    arguments: Text


class ToolCall(Strict):
    """A call in an earlier answer."""

    id: Annotated[str, Field(max_length=100)]
    type: Literal["function"]
    function: FunctionCall


class Message(Strict):
    """One turn of a chat. Contents in parts are joined; parts other than text are errors."""

    inert = INERT_IN_MESSAGES

    role: Annotated[str, Field(min_length=1, max_length=64)]
    content: Annotated[
        Text | Annotated[list[Part], Field(max_length=MAX_TEXTS)] | None,
        shape(
            f"a text, or a list of at most {MAX_TEXTS} parts such as "
            '{"type": "text", "text": "Hello"}; other parts (pictures, sound, files) are not supported'
        ),
    ] = None
    tool_calls: Annotated[list[ToolCall], Field(max_length=MAX_TOOLS)] | None = None
    tool_call_id: Annotated[str, Field(max_length=100)] | None = None

    @model_validator(mode="after")
    def _complete(self) -> Message:
        if self.content is None and not self.tool_calls:
            raise field_error("content", "is missing; give a text (only an answer with tool_calls may come without)")
        if self.tool_calls and self.role != "assistant":
            raise field_error("tool_calls", "are the assistant's; leave them out of other turns")
        if self.tool_call_id is not None and self.role != "tool":
            raise field_error("tool_call_id", "belongs to a result; give it with the role tool")
        return self

    @property
    def uses_tools(self) -> bool:
        """Whether it needs a chat template with a form for tools."""
        return bool(self.tool_calls) or self.tool_call_id is not None

    def turn(self) -> dict[str, Any]:
        """As chat templates take it, the content as one text."""
        parts = [self.content] if isinstance(self.content, str) else [part.text for part in self.content or ()]
        turn: dict[str, Any] = {"role": self.role, "content": "".join(parts)}
        if self.tool_calls:
            turn["tool_calls"] = [call.model_dump() for call in self.tool_calls]
        return turn if self.tool_call_id is None else turn | {"tool_call_id": self.tool_call_id}


Messages = Annotated[list[Message], Field(min_length=1, max_length=4096)]


def _bounded_schema(schema: dict[str, Any]) -> dict[str, Any]:
    try:
        size = len(json.dumps(schema, ensure_ascii=False))
    except RecursionError:
        raise PydanticCustomError("nested", "is nested too deeply; make it flatter") from None
    if size > MAX_SCHEMA:
        message = f"has {size:,} characters, and {MAX_SCHEMA:,} are the most; shorten it"
        raise PydanticCustomError("size", "{message}", {"message": message})
    return schema


JsonSchema = Annotated[dict[str, Any], AfterValidator(_bounded_schema)]


class Function(Strict):
    """A function that the model may call. parameters: the JSON schema of its arguments. strict: whether calls
    must follow it; those that a `tool_choice` requires always do."""

    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    description: Text | None = None
    parameters: JsonSchema | None = None
    strict: bool | None = None


class ToolBody(Strict):
    """One of `tools`."""

    type: Literal["function"]
    function: Function


class FunctionName(Strict):
    """The function of a `tool_choice`."""

    name: str


class ToolChoice(Strict):
    """A function that must be called."""

    type: Literal["function"]
    function: FunctionName


class NamedSchema(Strict):
    """The schema of an answer. It is always enforced as it stands, so that `strict` changes nothing."""

    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    description: Text | None = None
    json_schema: JsonSchema = Field(alias="schema")
    strict: bool | None = None


class ResponseFormat(Strict):
    """What an answer must be: text, any JSON object, or JSON of a schema."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: NamedSchema | None = None

    @model_validator(mode="after")
    def _complete(self) -> ResponseFormat:
        if (self.json_schema is not None) != (self.type == "json_schema"):
            raise field_error("json_schema", "goes with type=json_schema, and with no other; give both or neither")
        return self

    @property
    def schema_of_answer(self) -> dict[str, Any] | None:
        """The JSON schema; None: any text."""
        if self.json_schema is not None:
            return self.json_schema.json_schema
        return {"type": "object"} if self.type == "json_object" else None
