"""The bodies of the paths under `/api`, for looking inside."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from glassformer.server.message_schemas import Messages
from glassformer.server.schemas import MAX_TOKENS, Body, SamplingFields, Text, Token, Tokens, field_error

MAX_VIEW_INPUT = 1 << 16  # characters of all options of a view together
MAX_FILE = 8 << 20  # letters of base64: six million bytes
MAX_POSITIONS = 64  # of one request for logits
MAX_SEED = 1 << 53  # whole numbers are exact in a browser up to here


class TokenizeBody(Body):
    """`POST /api/tokenize`: a text as a completion reads it, or messages as a chat does."""

    text: Text | None = None
    messages: Messages | None = None
    merges: Annotated[int, Field(ge=0, le=64)] = 0
    """of a text, for how many of its chunks to list the merges of byte-pair encoding"""

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
    file: Annotated[str, Field(max_length=MAX_FILE)] | None = None
    """of a model that reads images, sounds or episodes: a file's bytes in base64; `text` or `sound` is its name"""

    save: Literal["html", "csv"] | None = None
    """as a file instead of JSON: a page of its own, or a line for each number"""

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
