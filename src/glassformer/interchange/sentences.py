"""Sentence encoders: what a folder of sentence-transformers says beside config.json about one vector for a text.

Reimers and Gurevych 2019, https://arxiv.org/abs/1908.10084: the mean of an encoder's vectors (or the first of them),
divided by its length. `modules.json` names the steps, `1_Pooling/config.json` how the vectors become one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from glassformer.errors import ModelFolderError
from glassformer.interchange.configuration import read_json
from glassformer.tokenizers import Tokenizer

_POOLINGS = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "first"}


def as_sentence_encoder(model: Any, tokenizer: Tokenizer | None, folder: Path) -> None:
    """Let an encoder pool as the folder says, drop what it does not use, and cut texts as long as it was trained for;
    other models are left as they are.

    Raises:
        ModelFolderError: it pools in a way that ours cannot.
    """
    path = folder / "1_Pooling" / "config.json"
    if not path.is_file() or not hasattr(model.config, "pooling"):
        return
    asked = [name for name, on in read_json(path).items() if name.startswith("pooling_mode_") and on is True]
    if len(asked) != 1 or asked[0] not in _POOLINGS:
        raise ModelFolderError(f"{path}: {', '.join(asked) or 'no way'} of pooling, where mean or first token is known")
    model.config = model.config.model_copy(update={"pooling": _POOLINGS[asked[0]], "pooler": False})
    model.pooler = None
    beside = folder / "sentence_bert_config.json"
    longest = read_json(beside).get("max_seq_length") if beside.is_file() else None
    if tokenizer is not None and isinstance(longest, int):
        tokenizer.settings["model_max_length"] = longest
