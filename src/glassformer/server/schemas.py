"""What may be asked: the bodies of OpenAI's API, checked and bounded at the door.

https://platform.openai.com/docs/api-reference. Fields that we have besides: top_k, min_p, repetition_penalty. Fields
that change nothing here (user, metadata, store) are taken and passed over; what would change the answer and is not done
here is refused.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

MOST_TOKENS = 1 << 16  # of a prompt, and of an answer
MOST_SAMPLES = 64
MOST_TEXTS = 256
MOST_CHARACTERS = 1 << 20

MOST_POSITIONS = 64  # whose logits are told at once
MOST_SEED = 1 << 53  # whole numbers are exact in a browser up to here

Text = Annotated[str, Field(max_length=MOST_CHARACTERS)]
Token = Annotated[int, Field(ge=0, lt=1 << 31)]
Tokens = Annotated[list[Token], Field(min_length=1, max_length=MOST_TOKENS)]
Stop = Annotated[str, Field(min_length=1, max_length=256)]


class Body(BaseModel):
    """What every request may say."""

    model_config = ConfigDict(extra="ignore")

    model: Annotated[str, Field(max_length=300)] | None = None
    user: Any = None


class Drawing(Body):
    """How tokens are drawn."""

    max_tokens: Annotated[int, Field(ge=0, le=MOST_TOKENS)] | None = None
    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    n: Annotated[int, Field(ge=1, le=MOST_SAMPLES)] | None = None
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=16)] | None = None
    seed: Annotated[int, Field(ge=-(1 << 62), lt=1 << 62)] | None = None
    logit_bias: Annotated[dict[str, float], Field(max_length=1024)] | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    top_k: Annotated[int, Field(ge=0, le=MOST_TOKENS)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=100)] | None = None

    @model_validator(mode="after")
    def _refuse(self) -> Drawing:
        for name in ("presence_penalty", "frequency_penalty"):
            if getattr(self, name):
                raise ValueError(f"{name} is not supported; use repetition_penalty (1 is off)")
        return self


class CompletionBody(Drawing):
    """`POST /v1/completions`."""

    prompt: Text | Tokens | Annotated[list[Text | Tokens], Field(min_length=1, max_length=MOST_TEXTS)] = ""
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    best_of: int | None = None
    suffix: str | None = None

    @model_validator(mode="after")
    def _refuse_more(self) -> CompletionBody:
        if self.suffix:
            raise ValueError("suffix is not supported; put all of the text into prompt")
        if self.best_of is not None and self.best_of != (self.n or 1):
            raise ValueError("best_of is not supported; use n")
        return self


class Message(BaseModel):
    """One turn of a chat. Contents in parts are joined; parts other than text are refused."""

    model_config = ConfigDict(extra="ignore")

    role: Annotated[str, Field(min_length=1, max_length=64)]
    content: Text | Annotated[list[dict[str, Any]], Field(max_length=MOST_TEXTS)] | None = ""
    name: Annotated[str, Field(max_length=256)] | None = None

    @property
    def text(self) -> str:
        """The content as one text."""
        if isinstance(self.content, list):
            return "".join(part["text"] for part in self.content)
        return self.content or ""

    @model_validator(mode="after")
    def _text_alone(self) -> Message:
        for part in self.content if isinstance(self.content, list) else []:
            if part.get("type") != "text" or not isinstance(part.get("text"), str):
                raise ValueError(f"a part of type {str(part.get('type'))[:40]!r} is not supported; text is")
        return self


class ChatBody(Drawing):
    """`POST /v1/chat/completions`."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=4096)]
    max_completion_tokens: Annotated[int, Field(ge=0, le=MOST_TOKENS)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    tools: list[Any] | None = None
    response_format: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _refuse_more(self) -> ChatBody:
        if self.tools:
            raise ValueError("tools are not supported")
        if self.response_format and self.response_format.get("type", "text") != "text":
            raise ValueError("response_format is not supported, but for text")
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs=true")
        return self


class EmbeddingBody(Body):
    """`POST /v1/embeddings`."""

    input: Text | Annotated[list[Text], Field(min_length=1, max_length=MOST_TEXTS)]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None

    @model_validator(mode="after")
    def _refuse(self) -> EmbeddingBody:
        if self.dimensions is not None:
            raise ValueError("dimensions is not supported; the whole vector is given")
        return self


# Looking inside


class TokenizeBody(Body):
    """`POST /api/tokenize`: a text as a completion reads it, or messages as a chat does."""

    text: Text | None = None
    messages: Annotated[list[Message], Field(min_length=1, max_length=4096)] | None = None

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
            raise ValueError(f"position {furthest} is beyond the {len(self.ids)} ids (the first one is position 0)")
        return self


class GenerateBody(Body):
    """`POST /api/generate`: go on from these ids. Fields as those of `Sampling`."""

    ids: Tokens
    max_tokens: Annotated[int, Field(ge=0, le=MOST_TOKENS)] = 64
    temperature: Annotated[float, Field(ge=0, le=100)] = 1.0
    top_k: Annotated[int, Field(ge=0, le=1 << 31)] = 0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    min_p: Annotated[float, Field(ge=0, le=1)] = 0.0
    seed: Annotated[int, Field(ge=0, lt=MOST_SEED)] | None = None
    end_tokens: Annotated[list[Token], Field(max_length=64)] | None = None
    score: bool = False
