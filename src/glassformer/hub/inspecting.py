"""What a path holds, without running it; and what differs between two models."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from glassformer.errors import GlassformerError, ModelFolderError, TokenizerError, one_line
from glassformer.files import disk_errors, sha256_file
from glassformer.hub.configuration import read_config, read_json
from glassformer.hub.ctranslate2.reading import is_ctranslate2, open_ctranslate2, whisper_tokenizer
from glassformer.hub.gguf.architectures import ARCHITECTURES
from glassformer.hub.gguf.file import read_gguf
from glassformer.hub.gguf.tokenizer import tokenizer_from_gguf
from glassformer.hub.importing import is_gguf, open_foreign
from glassformer.hub.locate import model_folder_of
from glassformer.hub.state_dict import untied_state
from glassformer.models import EncoderDecoderConfig
from glassformer.processors.tokenizers import Tokenizer, load_tokenizer

_SIZES = ("n_layer", "n_head", "n_kv_head", "n_embd", "n_hidden", "vocab_size", "block_size")
_LAYER_FIELDS = ("positions", "norm", "norm_place", "feedforward", "activation", "bias", "qk_norm", "tied_head")


def inspect(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What a run, a model folder, a GGUF file, a checkpoint of nanoGPT or a folder of CTranslate2 is.

    Returns:
        form, family, sizes, parameters, number formats (name: tensors), tokenizer, chat_template, files (name, bytes,
        SHA-256). What is not known is left out.

    Raises:
        ModelFolderError: nothing that can be read here.
        MissingExtraError: an optional package is needed.
    """
    given = Path(path)
    if is_gguf(given):
        found = _gguf(given)
    elif given.is_file():
        found = _checkpoint(given)
    elif given.is_dir() and is_ctranslate2(given):
        found = _ctranslate2(given)
    else:
        given = model_folder_of(path)
        found = _folder(given)
    return {"path": str(given), **found, "files": _files(given)}


def compare(a: str | os.PathLike[str], b: str | os.PathLike[str]) -> dict[str, Any]:
    """What differs between two models of any form: `config` (field: the two values), `tokenizer` (whether it is the
    same), and `tensors`: how many are equal, and how each other one differs, the largest difference first.

    Raises: as `inspect`.
    """
    (one, its), (other, theirs) = (
        open_foreign(Path(path) if Path(path).is_file() else model_folder_of(path))[0] for path in (a, b)
    )
    c, d = one.config.model_dump(mode="json"), other.config.model_dump(mode="json")
    config = {name: [c.get(name), d.get(name)] for name in [*c, *(n for n in d if n not in c)]}
    left, right = untied_state(one), untied_state(other)
    differing: list[dict[str, Any]] = []
    for name in [*left, *(n for n in right if n not in left)]:
        if name not in left or name not in right:
            differing.append({"name": name, "only_in": str(a if name in left else b)})
        elif left[name].shape != right[name].shape:
            differing.append({"name": name, "shapes": [list(left[name].shape), list(right[name].shape)]})
        elif not (left[name] == right[name]).all():
            apart = (left[name].float() - right[name].float()).norm() / left[name].float().norm().clamp_min(1e-30)
            differing.append({"name": name, "relative": float(apart)})
    differing.sort(key=lambda entry: -entry.get("relative", math.inf))
    return {
        "config": {name: pair for name, pair in config.items() if pair[0] != pair[1]},
        "tokenizer": None if its is None or theirs is None else its == theirs,
        "tensors": {"equal": len({*left, *right}) - len(differing), "differing": differing},
    }


def _folder(folder: Path) -> dict[str, Any]:
    family, config = read_config(folder)
    names = read_json(folder / "config.json").get("architectures")
    name = f" ({names[0]})" if isinstance(names, list) and names else ""
    tensors = [entry for file in sorted(folder.glob("*.safetensors")) for entry in _safetensors_header(file)]
    return {
        "form": "model folder",
        "family": f"{family.model_type}{name}",
        **_configured(config),
        **_counted(tensors),
        **_tokenizer(lambda: load_tokenizer(folder) if (folder / "tokenizer.json").is_file() else None),
    }


def _gguf(path: Path) -> dict[str, Any]:
    file = read_gguf(path)
    name = str(file.fields.get("general.architecture"))
    found: dict[str, Any] = {"form": "GGUF file", "family": name}
    for field in ("name", "license"):
        if isinstance(value := file.fields.get(f"general.{field}"), str):
            found[field] = value
    if name in ARCHITECTURES:
        shapes = {name: tensor.shape for name, tensor in file.tensors.items()}
        try:
            words = ARCHITECTURES[name].words(file.fields, shapes)
            found |= _configured(ARCHITECTURES[name].family.read_config(words))
        except GlassformerError as error:
            raise ModelFolderError(f"{path}: {one_line(error)}") from None
    found |= _counted((tensor.kind.name, tensor.shape) for tensor in file.tensors.values())
    return {**found, **_tokenizer(lambda: tokenizer_from_gguf(file.fields), damaged_is_shown=True)}


def _ctranslate2(folder: Path) -> dict[str, Any]:
    file, config, tokens = open_ctranslate2(folder)
    return {
        "form": "CTranslate2 folder",
        "family": f"whisper ({file.kind})",
        **_configured(config),
        **_counted((tensor.kind_name, tensor.shape) for tensor in file.tensors.values()),
        **_tokenizer(lambda: whisper_tokenizer(folder, tokens), damaged_is_shown=True),
    }


def _checkpoint(path: Path) -> dict[str, Any]:
    model, tokenizer = open_foreign(path)[0]
    return {
        "form": "nanoGPT checkpoint",
        "family": "gpt2",
        **_configured(model.config),
        **_counted((str(p.dtype).removeprefix("torch."), p.shape) for p in model.parameters()),
        **_tokenizer(lambda: tokenizer),
    }


def _configured(config: Any) -> dict[str, Any]:
    fields = (config.decoder if isinstance(config, EncoderDecoderConfig) else config).model_dump()
    return {
        "sizes": {name: fields[name] for name in _SIZES if name in fields},
        "layers": {name: fields[name] for name in _LAYER_FIELDS if name in fields},
    }


def _counted(tensors: Iterable[tuple[str, Sequence[int]]]) -> dict[str, Any]:
    """Parameters, and how many tensors there are of each number format."""
    tensors = list(tensors)
    formats = Counter(form for form, _ in tensors)
    return {"parameters": sum(math.prod(shape) for _, shape in tensors), "formats": dict(formats)}


def _tokenizer(read: Callable[[], Tokenizer | None], *, damaged_is_shown: bool = False) -> dict[str, Any]:
    try:
        tokenizer = read()
    except (ModelFolderError, TokenizerError) as error:
        if not damaged_is_shown:
            raise
        return {"tokenizer": f"not readable: {error}"}
    if tokenizer is None:
        return {"tokenizer": None}
    end = tokenizer.end_of_text
    return {
        "tokenizer": {
            "kind": tokenizer.kind,
            "tokens": tokenizer.vocab_size,
            "special": len(tokenizer.special_tokens),
            "end_of_text": None if end is None else tokenizer.token_text(end),
            "hash": tokenizer.hash,
        },
        "chat_template": tokenizer.chat_template,
    }


def _files(path: Path) -> list[dict[str, Any]]:
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    with disk_errors(path):
        return [
            {
                "name": file.name if path.is_file() else str(file.relative_to(path)),
                "bytes": file.stat().st_size,
                "sha256": sha256_file(file),
            }
            for file in files[:100]
        ]


def _safetensors_header(file: Path) -> list[tuple[str, list[int]]]:
    """The number formats and shapes in a safetensors file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as opened:
            slices = [opened.get_slice(name) for name in opened.keys()]  # noqa: SIM118
            return [(part.get_dtype(), part.get_shape()) for part in slices]
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelFolderError(f"{file}: damaged or truncated ({str(error).splitlines()[0]}); copy it again") from None
