"""The models that came before the Transformer, in the calls of this house, so that the same loop trains them.

    n-gram              count, and where counts are few ask one token less      Shannon 1948; Kneser and Ney 1995
    bigram              a table of V x V, by gradient
    mlp                 the last three words as vectors                         Bengio et al. 2003
    rnn                 one state for all that was read                         Elman 1990; Mikolov et al. 2010
    lstm                the same with gates, so that it lasts                   Hochreiter and Schmidhuber 1997
    skip-gram           no text, but a vector for each word                     Mikolov et al. 2013
    gru                 two gates instead of three                              Cho et al. 2014
    seq2seq             read a sentence into one vector, write from it          Sutskever et al. 2014; Cho et al. 2014
    seq2seq-attention   look at every word while writing                        Bahdanau et al. 2014

Language models are called like `Decoder`, the last two like `EncoderDecoder`; a skip-gram gives vectors and no logits.
"""

from __future__ import annotations

from typing import Any

from glassformer.errors import UsageError, did_you_mean
from glassformer.models.history.base import HistoryModel
from glassformer.models.history.bigram import Bigram
from glassformer.models.history.cache import RecurrentCache, TokenCache
from glassformer.models.history.config import (
    BigramConfig,
    HistoryConfig,
    MLPConfig,
    NGramConfig,
    RecurrentConfig,
    Seq2SeqConfig,
    SkipGramConfig,
)
from glassformer.models.history.mlp import MLP
from glassformer.models.history.n_gram import NGram
from glassformer.models.history.recurrent import Recurrent
from glassformer.models.history.seq2seq import Seq2Seq
from glassformer.models.history.skip_gram import SkipGram

HISTORY: dict[str, tuple[type[HistoryConfig], type[HistoryModel]]] = {
    "n-gram": (NGramConfig, NGram),
    "bigram": (BigramConfig, Bigram),
    "mlp": (MLPConfig, MLP),
    "rnn": (RecurrentConfig, Recurrent),
    "gru": (RecurrentConfig, Recurrent),
    "lstm": (RecurrentConfig, Recurrent),
    "skip-gram": (SkipGramConfig, SkipGram),
    "seq2seq": (Seq2SeqConfig, Seq2Seq),
    "seq2seq-attention": (Seq2SeqConfig, Seq2Seq),
}


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


__all__ = [
    "HISTORY",
    "MLP",
    "Bigram",
    "BigramConfig",
    "HistoryConfig",
    "HistoryModel",
    "MLPConfig",
    "NGram",
    "NGramConfig",
    "Recurrent",
    "RecurrentCache",
    "RecurrentConfig",
    "Seq2Seq",
    "Seq2SeqConfig",
    "SkipGram",
    "SkipGramConfig",
    "TokenCache",
    "build_history",
]
