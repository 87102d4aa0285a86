"""What may be asked: the bodies of OpenAI's API, checked and bounded at the door.

Fields that we have besides: top_k, min_p, repetition_penalty. What is applied stands here; what else may be sent and
what is refused, in fields.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, WrapValidator, model_validator
from pydantic_core import PydanticCustomError

from glassformer.server.fields import HARMLESS, INERT, INERT_IN_MESSAGES, own_fields, refused

MOST_TOKENS = 1 << 16  # of a prompt, and of an answer
MOST_SAMPLES = 64
MOST_TEXTS = 256
MOST_CHARACTERS = 1 << 20
MOST_STOPS, LONGEST_STOP = 16, 256
MOST_BIASES = 1024

MOST_POSITIONS = 64  # whose logits are told at once
MOST_SEED = 1 << 53  # whole numbers are exact in a browser up to here


def either(words: str) -> WrapValidator:
    """For a field that may have one of several shapes: what it should be, in place of each shape's own complaint."""

    def check(value: Any, handler: Callable[[Any], Any]) -> Any:
        try:
            return handler(value)
        except ValidationError:
            raise PydanticCustomError("either", "{words}", {"words": f"give {words}"}) from None

    return WrapValidator(check)


Text = Annotated[str, Field(max_length=MOST_CHARACTERS)]
Token = Annotated[int, Field(ge=0, lt=1 << 31)]
Tokens = Annotated[list[Token], Field(min_length=1, max_length=MOST_TOKENS)]
Texts = Annotated[
    Text | Tokens | Annotated[list[Text | Tokens], Field(min_length=1, max_length=MOST_TEXTS)],
    either(
        f"a text, a list of texts, token ids (whole numbers) or a list of lists of token ids: at most {MOST_TEXTS} "
        f"of them, with {MOST_CHARACTERS:,} characters or {MOST_TOKENS:,} ids each, and no list of ids empty"
    ),
]
Stop = Annotated[str, Field(min_length=1, max_length=LONGEST_STOP)]
Stops = Annotated[
    Stop | Annotated[list[Stop], Field(max_length=MOST_STOPS)],
    either(f"a text of 1 to {LONGEST_STOP} characters, or a list of at most {MOST_STOPS} of them"),
]
Biases = Annotated[
    dict[Annotated[str, Field(pattern=r"^[0-9]{1,10}$")], Annotated[float, Field(ge=-100, le=100)]],
    Field(max_length=MOST_BIASES),
    either(f'numbers from -100 to 100 by token id, such as {{"5": -100}}, at most {MOST_BIASES:,} of them'),
]


class Body(BaseModel):
    """What every request may say. Numbers are numbers and not texts of digits, and finite."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
    inert: ClassVar[dict[str, Any]] = {}
    harmless: ClassVar[frozenset[str]] = frozenset()

    model: Annotated[str, Field(max_length=300)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _own_fields(cls, given: Any) -> Any:
        return own_fields(given, cls.model_fields, cls.inert, cls.harmless)


class OpenAIBody(Body):
    """A body of OpenAI's API."""

    inert = INERT
    harmless = HARMLESS


class StreamOptions(BaseModel):
    """How an answer streams. include_obfuscation: OpenAI pads its pieces, so that their lengths reveal nothing."""

    model_config = ConfigDict(extra="forbid", strict=True)

    include_usage: bool | None = None
    include_obfuscation: Literal[False] | None = None


class Drawing(OpenAIBody):
    """How tokens are drawn. What is left out is the model's own default, and 1, off or none where it has none."""

    max_tokens: Annotated[int, Field(ge=0, le=MOST_TOKENS)] | None = None
    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    n: Annotated[int, Field(ge=1, le=MOST_SAMPLES)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    stop: Stops | None = None
    seed: Annotated[int, Field(ge=-(1 << 62), lt=1 << 62)] | None = None
    logit_bias: Biases | None = None
    top_k: Annotated[int, Field(ge=0, le=MOST_TOKENS)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=100)] | None = None

    @model_validator(mode="after")
    def _streams(self) -> Drawing:
        if self.stream_options is not None and not self.stream:
            raise refused("stream_options", "is about streams; say stream=true or leave it out")
        return self


class CompletionBody(Drawing):
    """`POST /v1/completions`."""

    prompt: Texts = ""
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    best_of: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _all_are_shown(self) -> CompletionBody:
        if self.best_of is not None and self.best_of != (self.n or 1):
            raise refused("best_of", "is not supported but for n, where it says nothing; use n")
        return self

    @property
    def prompts(self) -> list[str | list[int]]:
        """The prompts, however many they are."""
        return several(self.prompt)


def several(given: Any) -> list[Any]:
    """One text or one list of ids as a list of one; a list of them as it is."""
    return [given] if isinstance(given, str) or isinstance(given[0], int) else given


class Part(BaseModel):
    """A part of a message's content."""

    model_config = ConfigDict(extra="forbid", strict=True)

    type: Literal["text"]
    text: Text


class Message(BaseModel):
    """One turn of a chat. Contents in parts are joined; parts other than text are refused."""

    model_config = ConfigDict(extra="forbid", strict=True)

    role: Annotated[str, Field(min_length=1, max_length=64)]
    content: Annotated[
        Text | Annotated[list[Part], Field(max_length=MOST_TEXTS)],
        either(
            f"a text, or a list of at most {MOST_TEXTS} parts such as "
            '{"type": "text", "text": "Hello"}; other parts (pictures, sound, files) are not supported'
        ),
    ]

    @model_validator(mode="before")
    @classmethod
    def _own_fields(cls, given: Any) -> Any:
        return own_fields(given, cls.model_fields, INERT_IN_MESSAGES)

    @property
    def text(self) -> str:
        """The content as one text."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


Messages = Annotated[list[Message], Field(min_length=1, max_length=4096)]


class ChatBody(Drawing):
    """`POST /v1/chat/completions`."""

    messages: Messages
    max_completion_tokens: Annotated[int, Field(ge=0, le=MOST_TOKENS)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None

    @model_validator(mode="after")
    def _with_logprobs(self) -> ChatBody:
        if self.top_logprobs and not self.logprobs:
            raise refused("top_logprobs", "needs logprobs=true")
        if None not in (self.max_tokens, self.max_completion_tokens) and self.max_tokens != self.max_completion_tokens:
            raise refused("max_tokens", "is the old name of max_completion_tokens; give one of them")
        return self


class EmbeddingBody(OpenAIBody):
    """`POST /v1/embeddings`."""

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
    """`POST /api/logits`: what the model says after `ids[: p + 1]`, for each position p."""

    ids: Tokens
    positions: Annotated[list[Token], Field(min_length=1, max_length=MOST_POSITIONS)]

    @model_validator(mode="after")
    def _within(self) -> LogitsBody:
        if (furthest := max(self.positions)) >= len(self.ids):
            ids = f"the {len(self.ids)} ids (the first one is position 0)"
            raise refused("positions", f"position {furthest} is beyond {ids}")
        return self


class GenerateBody(Body):
    """`POST /api/generate`: go on from these ids. Fields as those of `Sampling`, with the model's own defaults."""

    ids: Tokens
    max_tokens: Annotated[int, Field(ge=0, le=MOST_TOKENS)] = 64
    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    top_k: Annotated[int, Field(ge=0, le=1 << 31)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=100)] | None = None
    seed: Annotated[int, Field(ge=0, lt=MOST_SEED)] | None = None
    end_tokens: Annotated[list[Token], Field(max_length=64)] | None = None
    score: bool = False
