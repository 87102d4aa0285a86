"""Registers the models and the task of this package; `glassformer.plugins` imports every `plugin.py` that it finds."""

from __future__ import annotations

from typing import Any

from glassformer.errors import UsageError, did_you_mean
from glassformer.history.attentive import AttentiveLSTM
from glassformer.history.base import HistoryModel
from glassformer.history.bigram import Bigram
from glassformer.history.config import (
    AttentiveLSTMConfig,
    BigramConfig,
    HistoryConfig,
    MLPConfig,
    NGramConfig,
    RecurrentConfig,
    Seq2SeqConfig,
    SkipGramConfig,
)
from glassformer.history.mlp import MLP
from glassformer.history.n_gram import NGram
from glassformer.history.recurrent import Recurrent
from glassformer.history.seq2seq import Seq2Seq
from glassformer.history.skip_gram import SkipGram
from glassformer.history.skip_gram_task import SkipGramTask
from glassformer.models import MODELS
from glassformer.tasks import TASKS

HISTORY: dict[str, tuple[type[HistoryConfig], type[HistoryModel]]] = {
    "n-gram": (NGramConfig, NGram),
    "bigram": (BigramConfig, Bigram),
    "mlp": (MLPConfig, MLP),
    "rnn": (RecurrentConfig, Recurrent),
    "gru": (RecurrentConfig, Recurrent),
    "lstm": (RecurrentConfig, Recurrent),
    "lstm-attention": (AttentiveLSTMConfig, AttentiveLSTM),
    "skip-gram": (SkipGramConfig, SkipGram),
    "seq2seq": (Seq2SeqConfig, Seq2Seq),
    "seq2seq-attention": (Seq2SeqConfig, Seq2Seq),
}

MODELS.update(HISTORY)
TASKS["skip_gram"] = SkipGramTask


def build_history(kind: str, **fields: Any) -> Any:
    """A fresh model of one of the kinds in `HISTORY`, from the fields of its configuration.

    Raises:
        UsageError: there is no such kind, or a field is unknown or out of range.

    >>> build_history("gru", vocab_size=65, block_size=8, n_embd=4).parameter_count()
    705
    """
    if kind not in HISTORY:
        raise UsageError(f"model.kind={kind!r} is unknown; {did_you_mean(kind, HISTORY)}")
    config, model = HISTORY[kind]
    return model(config.make(kind=kind, **fields))
