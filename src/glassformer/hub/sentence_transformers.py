"""Sentence encoders: how a folder of sentence-transformers makes one vector of a text.

Reimers and Gurevych 2019, https://arxiv.org/abs/1908.10084: the mean of an encoder's vectors (or the first of them),
divided by its length. `modules.json` names the steps, `1_Pooling/config.json` how the vectors become one. What would
change the vectors and is not known here is refused.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from glassformer.errors import ModelFolderError, one_line
from glassformer.hub.configuration import read_json
from glassformer.models import EncoderConfig
from glassformer.processors.tokenizers import Tokenizer

_POOLINGS = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "first", "mean": "mean", "cls": "first"}
_WITHOUT_EFFECT = ("Transformer", "Dropout", "Normalize")  # `embed` divides every vector by its length


def apply_pooling(model: Any, folder: Path) -> None:
    """Let an encoder pool as in the folder, and drop what it then does not use; other models stay unchanged. Raises
    `ModelFolderError` for another way of pooling and for layers after it."""
    if not isinstance(model.config, EncoderConfig) or (path := _pooling_file(folder)) is None:
        return
    given = read_json(path)
    asked = [name for name, on in given.items() if name.startswith("pooling_mode_") and on is True]
    asked += [mode for mode in [given.get("pooling_mode")] if mode is not None]
    if len(asked) != 1 or asked[0] not in _POOLINGS:
        ways = ", ".join(map(str, asked)) or "no way"
        raise ModelFolderError(f"{path}: {ways} of pooling, where mean or first token is known; take another model")
    width = given.get("word_embedding_dimension", model.config.n_embd)
    if width != model.config.n_embd:
        raise ModelFolderError(f"{path}: pools vectors of {width} numbers, where the model has {model.config.n_embd}")
    model.config = model.config.model_copy(update={"pooling": _POOLINGS[asked[0]], "pooler": False})
    model.pooler = None


def apply_text_limits(tokenizer: Tokenizer, config: Any, folder: Path) -> None:
    """Cut texts to the length that a sentence encoder was trained for; config: that of its model. Raises
    `ModelFolderError` for texts that are prepared in another way."""
    if not isinstance(config, EncoderConfig) or _pooling_file(folder) is None:
        return
    if (beside := folder / "sentence_bert_config.json").is_file():
        given = read_json(beside)
        if isinstance(longest := given.get("max_seq_length"), int):
            tokenizer.settings["model_max_length"] = longest
        if given.get("do_lower_case") and tokenizer.encode("A") != tokenizer.encode("a"):
            hint = "set it to false and give texts in lower case"
            raise ModelFolderError(f"{beside}: do_lower_case=true, and its tokenizer keeps upper case; {hint}")
    if (beside := folder / "config_sentence_transformers.json").is_file():
        given = read_json(beside)
        name, prompts = given.get("default_prompt_name"), given.get("prompts")
        prompt = prompts.get(name) if isinstance(prompts, dict) else None
        if prompt:
            shown = one_line(repr(prompt), most=60)
            hint = "set it to null and put the prompt into your texts"
            raise ModelFolderError(f"{beside}: default_prompt_name={name!r} ({shown}) is not applied; {hint}")


def _pooling_file(folder: Path) -> Path | None:
    """The file that states the way of pooling; None for a folder that is no sentence encoder's."""
    steps = folder / "modules.json"
    if not steps.is_file():
        path = folder / "1_Pooling" / "config.json"
        return path if path.is_file() else None
    try:
        modules = [(str(m["type"]).rsplit(".", 1)[-1], str(m["path"])) for m in json.loads(steps.read_text("utf-8"))]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise ModelFolderError(f"{steps}: not a list of modules; copy it again") from None
    if unknown := [kind for kind, _ in modules if kind not in (*_WITHOUT_EFFECT, "Pooling")]:
        shown = one_line(unknown[0], most=60)
        raise ModelFolderError(f"{steps}: the step {shown} is not supported; take a model without it")
    places = [path for kind, path in modules if kind == "Pooling"]
    if any(Path(path).name != path for path in places):
        raise ModelFolderError(f"{steps}: names the folder {places[0]!r}, which is outside of this one")
    return folder / places[0] / "config.json" if places else None
