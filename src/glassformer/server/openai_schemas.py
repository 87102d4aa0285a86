"""The bodies of OpenAI's API. https://platform.openai.com/docs/api-reference"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from glassformer.errors import did_you_mean
from glassformer.server.message_schemas import MAX_TOOLS, Messages, ResponseFormat, ToolBody, ToolChoice
from glassformer.server.schemas import (
    MAX_CHARACTERS,
    MAX_TEXTS,
    MAX_TOKENS,
    Body,
    SamplingFields,
    Strict,
    Text,
    Tokens,
    field_error,
    shape,
)

MAX_SAMPLES = 64
MAX_STOPS, MAX_STOP_LENGTH = 16, 256
MAX_BIASES = 1024

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


class StreamOptions(Strict):
    """Options of a streamed answer."""

    include_usage: bool | None = None
    include_obfuscation: Literal[False] | None = None  # OpenAI pads its pieces to hide their lengths


class WritingBody(SamplingFields):
    """The fields that completions and chats share."""

    inert: ClassVar = {name: value for name, value in INERT.items() if name != "response_format"}
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
