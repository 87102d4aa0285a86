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

from pydantic import BaseModel, ConfigDict, Field, ValidationError, WrapValidator, model_validator
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
        "parallel_tool_calls",  # there are no tools
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
    "tool_calls": (([],), "write into content what was called"),
    "tool_call_id": ((), "write into content whose result it is"),
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
        known = {*cls.model_fields, *cls.inert, *cls.harmless}
        for name, value in given.items():
            if name not in known:
                raise field_error(name, f"there is no such field here; {did_you_mean(name, known)}")
            if name in cls.inert and value is not None:
                values, instead = cls.inert[name]
                if value not in values:
                    raise field_error(name, f"is not supported; {instead}")
        return {name: value for name, value in given.items() if name in cls.model_fields}


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


class WritingBody(SamplingFields):
    """The fields that completions and chats share."""

    inert = INERT
    harmless = HARMLESS

    max_tokens: Annotated[int, Field(ge=0, le=MAX_TOKENS)] | None = None
    n: Annotated[int, Field(ge=1, le=MAX_SAMPLES)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    stop: Stops | None = None
    seed: Annotated[int, Field(ge=-(1 << 62), lt=1 << 62)] | None = None
    logit_bias: Biases | None = None

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


class Message(Strict):
    """One turn of a chat. Contents in parts are joined; parts other than text are errors."""

    inert = INERT_IN_MESSAGES

    role: Annotated[str, Field(min_length=1, max_length=64)]
    content: Annotated[
        Text | Annotated[list[Part], Field(max_length=MAX_TEXTS)],
        shape(
            f"a text, or a list of at most {MAX_TEXTS} parts such as "
            '{"type": "text", "text": "Hello"}; other parts (pictures, sound, files) are not supported'
        ),
    ]

    def turn(self) -> dict[str, str]:
        """As chat templates take it, the content as one text."""
        parts = [self.content] if isinstance(self.content, str) else [part.text for part in self.content]
        return {"role": self.role, "content": "".join(parts)}


Messages = Annotated[list[Message], Field(min_length=1, max_length=4096)]


class ChatBody(WritingBody):
    """`POST /v1/chat/completions`."""

    messages: Messages
    max_completion_tokens: Annotated[int, Field(ge=0, le=MAX_TOKENS)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None

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
