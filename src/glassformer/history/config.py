"""The configurations of the models that came before: what decides their shape, checked once."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from glassformer.errors import UsageError
from glassformer.models.mistakes import Checked


class HistoryConfig(Checked):
    """What all of them have. `block_size` is how many tokens one training window holds; none of these models has a
    table of positions, so longer texts can be read.

    Raises:
        UsageError: from `make` when a field is unknown or out of range.
    """

    reads: ClassVar[str] = "text"

    kind: str
    vocab_size: int = Field(ge=1, le=10_000_000)
    block_size: int = Field(ge=1, le=10_000_000)


class NGramConfig(HistoryConfig):
    """n_gram: the longest run of tokens that is counted; the model looks at the n_gram - 1 tokens before."""

    kind: Literal["n-gram"] = "n-gram"
    n_gram: int = Field(default=5, ge=1, le=64)


class BigramConfig(HistoryConfig):
    """No more settings: a table of V x V."""

    kind: Literal["bigram"] = "bigram"


class MLPConfig(HistoryConfig):
    """context: how many tokens it looks at. direct: also straight from the embeddings to the logits (the paper's W)."""

    kind: Literal["mlp"] = "mlp"
    context: int = Field(default=3, ge=1, le=100_000)
    n_embd: int = Field(ge=1, le=1_000_000)
    n_hidden: int = Field(ge=1, le=1_000_000)
    direct: bool = False


class SkipGramConfig(HistoryConfig):
    """block_size: words of a row of text, within which neighbours are looked for."""

    kind: Literal["skip-gram"] = "skip-gram"
    n_embd: int = Field(ge=1, le=1_000_000)


class RecurrentConfig(HistoryConfig):
    """kind: the cell. n_layer: cells one above the other, each n_hidden wide; n_hidden is n_embd when left out."""

    kind: Literal["rnn", "gru", "lstm"]
    n_layer: int = Field(default=1, ge=1, le=1000)
    n_embd: int = Field(ge=1, le=1_000_000)
    n_hidden: int = Field(ge=1, le=1_000_000)

    _fill_in = model_validator(mode="before")(lambda given: _as_wide_as_embedded(given))


class AttentiveLSTMConfig(HistoryConfig):
    """n_layer: LSTM cells one above the other, each n_hidden wide; n_hidden is n_embd when left out."""

    kind: Literal["lstm-attention"] = "lstm-attention"
    n_layer: int = Field(default=1, ge=1, le=1000)
    n_embd: int = Field(ge=1, le=1_000_000)
    n_hidden: int = Field(ge=1, le=1_000_000)

    _fill_in = model_validator(mode="before")(lambda given: _as_wide_as_embedded(given))


class Seq2SeqConfig(HistoryConfig):
    """A source sentence read by a bidirectional cell, a target sentence written by another.

    kind: whether the writer sees one vector or searches all of them. vocab_size: of the target; source_vocab_size:
    None means that both share one vocabulary and one embedding. start_token, end_token: the target that is given begins
    with the one, the target that is asked for ends with the other. pad_token: fills up shorter rows; no model reads
    it. n_hidden: width of each direction of the reader, of the writer, and of the layer that scores; it is n_embd when
    left out.
    """

    kind: Literal["seq2seq", "seq2seq-attention"]
    cell: Literal["gru", "lstm"] = "gru"
    source_vocab_size: int | None = Field(default=None, ge=1, le=10_000_000)
    start_token: int = Field(ge=0)
    end_token: int = Field(ge=0)
    pad_token: int = Field(default=0, ge=0)
    n_layer: int = Field(default=1, ge=1, le=1000)
    n_embd: int = Field(ge=1, le=1_000_000)
    n_hidden: int = Field(ge=1, le=1_000_000)

    _fill_in = model_validator(mode="before")(lambda given: _as_wide_as_embedded(given))

    @model_validator(mode="after")
    def _check(self) -> Seq2SeqConfig:
        for name in ("start_token", "end_token", "pad_token"):
            if (token := getattr(self, name)) >= self.vocab_size:
                raise UsageError(
                    f"{name}={token} is not in the vocabulary of {self.vocab_size} tokens; "
                    f"use 0 to {self.vocab_size - 1}"
                )
        return self


def _as_wide_as_embedded(given: Any) -> Any:
    if isinstance(given, dict) and "n_embd" in given:
        return {"n_hidden": given["n_embd"], **given}
    return given
