"""The experiments about older models at a tiny size: seconds instead of minutes."""

from __future__ import annotations

LANGUAGE = {
    "bigram": {"learning_rate": 0.3},
    "mlp": {"n_embd": 5, "n_hidden": 11, "learning_rate": 0.05},
    "rnn": {"n_embd": 5, "n_hidden": 11, "learning_rate": 0.03},
    "gru": {"n_embd": 5, "n_hidden": 11, "learning_rate": 0.05},
    "lstm": {"n_embd": 5, "n_hidden": 11, "learning_rate": 0.05},
    "transformer": {"n_embd": 12, "n_layer": 1, "n_head": 2, "learning_rate": 0.03},
}
COPYING = {
    "seq2seq": {"cell": "gru", "n_embd": 7, "n_hidden": 11, "learning_rate": 0.02},
    "seq2seq-attention": {"cell": "gru", "n_embd": 7, "n_hidden": 11, "learning_rate": 0.02},
    "transformer": {"n_embd": 24, "n_layer": 1, "n_head": 2, "learning_rate": 0.01},
}
RECALLING = {
    "lstm": {"n_embd": 32, "n_hidden": 64},
    "lstm-attention": {"n_embd": 32, "n_hidden": 64},
    "transformer": {"n_embd": 32, "n_layer": 1, "n_head": 2},
}
FEW = {"steps": 80, "batch_size": 16, "shortest": 1, "longest": 3, "every": 2, "letters": 3, "examples": 40}
