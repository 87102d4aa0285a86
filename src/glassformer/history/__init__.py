"""The models that came before the Transformer, with the same methods, so that the same loop trains them.

    n-gram              count, and where counts are few ask one token less      Shannon 1948; Kneser and Ney 1995
    bigram              a table of V x V, by gradient
    mlp                 the last three words as vectors                         Bengio et al. 2003
    rnn                 one state for all that was read                         Elman 1990; Mikolov et al. 2010
    lstm                the same with gates, so that it lasts                   Hochreiter and Schmidhuber 1997
    lstm-attention      an LSTM that looks back at its own earlier states       Luong et al. 2015; Daniluk et al. 2017
    skip-gram           no text, but a vector for each word                     Mikolov et al. 2013
    gru                 two gates instead of three                              Cho et al. 2014
    seq2seq             read a sentence into one vector, write from it          Sutskever et al. 2014; Cho et al. 2014
    seq2seq-attention   look at every word while writing                        Bahdanau et al. 2014

Language models are called like `Decoder`, the last two like `EncoderDecoder`; a skip-gram gives vectors and no logits.

Apart from the core, which does not name it: `plugin.py` registers the models and the task, `commands.py` the command.
Experiments: `loss_against_compute`, `bottleneck`, `recall`, and all together in `comparison`.
"""

from __future__ import annotations

import importlib
from typing import Any

_MODULES = {
    "attentive": "AttentiveLSTM",
    "base": "HistoryModel",
    "bigram": "Bigram",
    "cache": "RecurrentCache TokenCache",
    "config": "AttentiveLSTMConfig BigramConfig HistoryConfig MLPConfig NGramConfig RecurrentConfig Seq2SeqConfig "
    "SkipGramConfig",
    "mlp": "MLP",
    "n_gram": "NGram",
    "plugin": "HISTORY build_history",
    "recurrent": "Recurrent",
    "seq2seq": "Seq2Seq",
    "skip_gram": "SkipGram",
    "skip_gram_task": "SkipGramTask",
    "word_batches": "WordBatches word_counts word_rows",
    "word_tests": "WordTests load_word_tests",
    "word_vectors": "WordVectorScores score_word_vectors",
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names.split()}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:  # late, so that the command's help does not wait for torch
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    importlib.import_module(f"{__name__}.plugin")  # so that a model made here can be saved and opened
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
