"""The bodies that the API accepts, checked and bounded. Each field of a request is one of three; others are errors:

    applied     a field of the body
    harmless    about the client, the bill or the speed: accepted without effect on the answer
    inert       not supported, and so accepted only with the values that request nothing

Our own fields: top_k, min_p, repetition_penalty. https://platform.openai.com/docs/api-reference
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, WrapValidator, model_validator
from pydantic_core import PydanticCustomError

from glassformer.errors import did_you_mean, one_line

MAX_TOKENS = 1 << 16  # of a prompt, and of an answer
MAX_SAMPLES = 64
MAX_TEXTS = 256
MAX_CHARACTERS = 1 << 20
MAX_STOPS, MAX_STOP_LENGTH = 16, 256
MAX_BIASES = 1024
MAX_VIEW_INPUT = 1 << 16  # characters of all options of a view together
MAX_POSITIONS = 64  # of one request for logits
MAX_TOOLS = 128
MAX_SCHEMA = 1 << 16  # characters of a JSON schema
MAX_SEED = 1 << 53  # whole numbers are exact in a browser up to here

HARMLESS = frozenset(
    {
        "user",
        "metadata",
        "safety_identifier",
        "service_tier",
        "prompt_cache_key",
        "prompt_cache_retention",
        "prediction",  # a guess at the answer, to be faster
        "parallel_tool_calls",  # of a completion, which has no tools
    }
)
_PENALTY = "use repetition_penalty (1 is off)"
_TOOLS = "describe in the messages what the model should know of them"
INERT: dict[str, tuple[tuple[Any, ...], str]] = {  # the values that request nothing, and what to do instead
    "presence_penalty": ((0,), _PENALTY),
    "frequency_penalty": ((0,), _PENALTY),
    "suffix": (("",), "put all of the text into prompt"),
    "store": ((False,), "answers are not kept; leave it out"),
    "tools": (([],), _TOOLS),
    "tool_choice": (("none", "auto"), _TOOLS),
    "functions": (([],), _TOOLS),
    "function_call": (("none", "auto"), _TOOLS),
    "response_format": (({"type": "text"},), "ask for the format in the messages"),
    "modalities": ((["text"],), "text is read and written"),
    "audio": ((), "text is read and written"),
    "reasoning_effort": (("none",), "leave it out"),
    "verbosity": ((), "ask in the messages for a shorter or longer answer"),
    "web_search_options": ((), "nothing is looked up; put what is needed into the messages"),
}
INERT_IN_MESSAGES: dict[str, tuple[tuple[Any, ...], str]] = {
    "name": ((), "write into content who speaks"),
    "function_call": ((), "write into content what was called"),
    "refusal": (("",), "write it into content"),
    "annotations": (([],), "write them into content"),
    "audio": ((), "text is read and written"),
    "reasoning_content": (("",), "write it into content"),
}


def field_error(name: str, message: str) -> PydanticCustomError:
    """An error about one field, raised by a validator of the whole body."""
    return PydanticCustomError("field", "{message}", {"message": message, "param": one_line(name) or "''"})


def shape(words: str) -> WrapValidator:
    """For a field of several possible types: one message instead of one for each type."""

    def check(value: Any, handler: Callable[[Any], Any]) -> Any:
        try:
            return handler(value)
        except ValidationError:
            raise PydanticCustomError("shape", "{words}", {"words": f"give {words}"}) from None

    return WrapValidator(check)


class Strict(BaseModel):
    """An object of known fields. Numbers are finite numbers and not texts of digits; null is a field not given."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
    inert: ClassVar[dict[str, tuple[tuple[Any, ...], str]]] = {}
    harmless: ClassVar[frozenset[str]] = frozenset()

    @model_validator(mode="before")
    @classmethod
    def _applied_fields(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given  # pydantic reports it
        fields = {field.alias or name for name, field in cls.model_fields.items()}
        known = {*fields, *cls.inert, *cls.harmless}
        for name, value in given.items():
            if name not in known:
                raise field_error(name, f"there is no such field here; {did_you_mean(name, known)}")
            if name in cls.inert and value is not None:
                values, instead = cls.inert[name]
                if value not in values:
                    raise field_error(name, f"is not supported; {instead}")
        return {name: value for name, value in given.items() if name in fields}


Text = Annotated[str, Field(max_length=MAX_CHARACTERS)]
Token = Annotated[int, Field(ge=0, lt=1 << 31)]
Tokens = Annotated[list[Token], Field(min_length=1, max_length=MAX_TOKENS)]
Texts = Annotated[
    Text | Tokens | Annotated[list[Text | Tokens], Field(min_length=1, max_length=MAX_TEXTS)],
    shape(
        f"a text, a list of texts, token ids (whole numbers) or a list of lists of token ids: at most {MAX_TEXTS} "
        f"of them, with {MAX_CHARACTERS:,} characters or {MAX_TOKENS:,} ids each, and no list of ids empty"
    ),
]
Stop = Annotated[str, Field(min_length=1, max_length=MAX_STOP_LENGTH)]
Stops = Annotated[
    Stop | Annotated[list[Stop], Field(max_length=MAX_STOPS)],
    shape(f"a text of 1 to {MAX_STOP_LENGTH} characters, or a list of at most {MAX_STOPS} of them"),
]
Biases = Annotated[
    dict[Annotated[str, Field(pattern=r"^[0-9]{1,10}$")], Annotated[float, Field(ge=-100, le=100)]],
    Field(max_length=MAX_BIASES),
    shape(f'numbers from -100 to 100 by token id, such as {{"5": -100}}, at most {MAX_BIASES:,} of them'),
]


def as_list(given: Any) -> list[Any]:
    """A list of texts or lists of ids; a single one becomes a list of one."""
    return [given] if isinstance(given, str) or isinstance(given[0], int) else given


class Body(Strict):
    """The field of every request."""

    model: Annotated[str, Field(max_length=300)] | None = None


class SamplingFields(Body):
    """The fields of `Sampling`. The default of a field is that of the model's folder, else that of `Sampling`."""

    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    top_k: Annotated[int, Field(ge=0, lt=1 << 31)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=100)] | None = None

    def sampling_fields(self) -> dict[str, Any]:
        """These fields by name."""
        return {name: getattr(self, name) for name in SamplingFields.model_fields if name != "model"}


# OpenAI's API


class StreamOptions(Strict):
    """Options of a streamed answer."""

    include_usage: bool | None = None
    include_obfuscation: Literal[False] | None = None  # OpenAI pads its pieces to hide their lengths


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


class WritingBody(SamplingFields):
    """The fields that completions and chats share."""

    inert = {name: value for name, value in INERT.items() if name != "response_format"}
    harmless = HARMLESS

    max_tokens: Annotated[int, Field(ge=0, le=MAX_TOKENS)] | None = None
    n: Annotated[int, Field(ge=1, le=MAX_SAMPLES)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    stop: Stops | None = None
    seed: Annotated[int, Field(ge=-(1 << 62), lt=1 << 62)] | None = None
    logit_bias: Biases | None = None
    response_format: ResponseFormat | None = None

    @model_validator(mode="after")
    def _stream_options_need_stream(self) -> WritingBody:
        if self.stream_options is not None and not self.stream:
            raise field_error("stream_options", "is for streams; give stream=true or leave it out")
        return self


class CompletionBody(WritingBody):
    """`POST /v1/completions`."""

    prompt: Texts = ""
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    best_of: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _best_of_is_n(self) -> CompletionBody:
        if self.best_of is not None and self.best_of != (self.n or 1):
            raise field_error("best_of", "is not supported unless it equals n; use n")
        return self


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


class Function(Strict):
    """A function that the model may call. parameters: the JSON schema of its arguments. strict: whether calls must
    follow it, which needs a `tool_choice` that requires one: then they always do."""

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


class ChatBody(WritingBody):
    """`POST /v1/chat/completions`."""

    inert: ClassVar = {n: value for n, value in WritingBody.inert.items() if n not in ("tools", "tool_choice")}
    harmless: ClassVar = HARMLESS - {"parallel_tool_calls"}

    messages: Messages
    max_completion_tokens: Annotated[int, Field(ge=0, le=MAX_TOKENS)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    tools: Annotated[list[ToolBody], Field(max_length=MAX_TOOLS)] | None = None
    tool_choice: Annotated[
        Literal["none", "auto", "required"] | ToolChoice | None,
        shape('none, auto, required, or {"type": "function", "function": {"name": ...}}'),
    ] = None
    parallel_tool_calls: bool | None = None

    @property
    def schemas(self) -> list[dict[str, Any]]:
        """The tools as the chat template takes them; none if the choice is none."""
        fields: Any = {"type": True, "function": {"name", "description", "parameters"}}
        tools = () if self.tool_choice == "none" else self.tools or ()
        return [tool.model_dump(include=fields, exclude_none=True) for tool in tools]

    @property
    def forced(self) -> str | None:
        """The function that must be called; "": any of them; None: the model decides."""
        names = [tool.function.name for tool in self.tools or ()]
        if self.tool_choice == "required":
            return names[0] if len(names) == 1 else ""
        return self.tool_choice.function.name if isinstance(self.tool_choice, ToolChoice) else None

    @model_validator(mode="after")
    def _known_tools(self) -> ChatBody:
        names = [tool.function.name for tool in self.tools or ()]
        if len(set(names)) < len(names):
            raise field_error("tools", "two functions have one name; rename one")
        if self.tool_choice == "required" and not names:
            raise field_error("tool_choice", "required needs tools; give some")
        if isinstance(self.tool_choice, ToolChoice) and self.forced not in names:
            raise field_error("tool_choice", f"there is no such function; {did_you_mean(str(self.forced), names)}")
        if self.forced is None and any(tool.function.strict for tool in self.tools or ()):
            raise field_error(
                "tools", "strict arguments need tool_choice=required or a function; give it, or no strict"
            )
        if self.schemas and self.response_format is not None and self.response_format.type != "text":
            raise field_error("response_format", "cannot be combined with tools; leave one out, or tool_choice=none")
        return self

    @model_validator(mode="after")
    def _consistent(self) -> ChatBody:
        if self.top_logprobs and not self.logprobs:
            raise field_error("top_logprobs", "needs logprobs=true")
        if None not in (self.max_tokens, self.max_completion_tokens) and self.max_tokens != self.max_completion_tokens:
            raise field_error("max_tokens", "is the old name of max_completion_tokens; give one of them")
        return self


class EmbeddingBody(Body):
    """`POST /v1/embeddings`."""

    inert = INERT
    harmless = HARMLESS

    input: Texts
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Field(ge=1)] | None = None


# Looking inside


class TokenizeBody(Body):
    """`POST /api/tokenize`: a text as a completion reads it, or messages as a chat does."""

    text: Text | None = None
    messages: Messages | None = None

    @model_validator(mode="after")
    def _one_of_them(self) -> TokenizeBody:
        if (self.text is None) == (self.messages is None):
            raise ValueError("give text or messages, and not both")
        return self


class LogitsBody(Body):
    """`POST /api/logits`: the logits of the token after `ids[: p + 1]`, for each position p."""

    ids: Tokens
    positions: Annotated[list[Token], Field(min_length=1, max_length=MAX_POSITIONS)]

    @model_validator(mode="after")
    def _within(self) -> LogitsBody:
        if (furthest := max(self.positions)) >= len(self.ids):
            ids = f"the {len(self.ids)} ids (the first one is position 0)"
            raise field_error("positions", f"position {furthest} is beyond {ids}")
        return self


class ViewBody(Body):
    """`POST /api/look/VIEW`: the arguments and options of the view, as `GET /api/views` describes them."""

    options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _bounded(self) -> ViewBody:
        if (size := len(json.dumps(self.options))) > MAX_VIEW_INPUT:
            raise field_error("options", f"{size:,} characters are more than {MAX_VIEW_INPUT:,}; shorten the text")
        return self


class GenerateBody(SamplingFields):
    """`POST /api/generate`: continue these ids."""

    ids: Tokens
    max_tokens: Annotated[int, Field(ge=0, le=MAX_TOKENS)] = 64
    seed: Annotated[int, Field(ge=0, lt=MAX_SEED)] | None = None
    end_tokens: Annotated[list[Token], Field(max_length=64)] | None = None
    score: bool = False
