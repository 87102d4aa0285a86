"""Model folders: write one that `transformers` loads, read one that it or we wrote."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from glassformer.errors import GlassformerError, ModelFolderError, UsageError, did_you_mean
from glassformer.files import atomic_file, atomic_folder, disk_errors, write_json
from glassformer.interchange.families import INTERCHANGE_FAMILIES, family_that_expresses
from glassformer.layers import int8_copy
from glassformer.models import Decoder, ModelConfig
from glassformer.models.counts import ShapesOnly
from glassformer.tokenizers import Tokenizer, load_tokenizer

MAX_JSON_BYTES = 64 * 2**20


def save(
    folder: str | os.PathLike[str],
    model: Decoder,
    tokenizer: Tokenizer | None = None,
    *,
    weights: dict[str, Tensor] | None = None,
) -> None:
    """Write a Hugging Face model folder, whole or not at all; an existing one is replaced when the new one is whole.

    `weights`, a state dict, is written in place of the model's own: a snapshot, while the model learns on.

    Beginning and end of text are always written (null when the tokenizer has none): GPT-2's default of 50256 would
    point outside a small vocabulary. What is ours alone stands under the key `glassformer`.

    Raises:
        ModelFolderError: the folder holds other things and no model, which would be lost.
        GlassformerError: the disk is full or the folder cannot be written; the old folder is untouched.
    """
    folder = Path(folder)
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "config.json").is_file():
        raise ModelFolderError(f"{folder}: holds other things than a model; choose an empty or a new folder")
    family = family_that_expresses(model.config)
    tensors = _own_tensors(model, weights)
    end_of_text = tokenizer.end_of_text if tokenizer is not None else None
    special = {"bos_token_id": end_of_text, "eos_token_id": end_of_text, "pad_token_id": None}
    config = {
        "architectures": [family.architecture],
        "model_type": family.model_type,
        **family.write_config(model.config),
        **special,
        "torch_dtype": str(tensors["embedding.token.weight"].dtype).removeprefix("torch."),
        "glassformer": {"bias": model.config.bias, "tokenizer": tokenizer.kind if tokenizer is not None else None},
    }
    with atomic_folder(folder, replace=True) as temporary:
        write_json(temporary / "config.json", config)
        write_json(temporary / "generation_config.json", {"do_sample": True, "temperature": 1.0, **special})
        save_weights(temporary / "model.safetensors", family.write_tensors(tensors, model.config))
        if tokenizer is not None:
            tokenizer.save(temporary)


def load(path: str | os.PathLike[str], *, device: str = "cpu", dtype: str = "fp32") -> tuple[Decoder, Tokenizer]:
    """Open a run folder, a checkpoint or a model folder: the model in eval mode, and its tokenizer.

    Args:
        dtype: `fp32`, the weights as they are, or `int8`, matrices rounded to 8 bits: quicker at generating
            on a CPU (`benchmarks/generate.py` says by how much), not trainable, logits a little off.

    Raises:
        UsageError: there is no such dtype.
        ModelFolderError: it is not there, damaged, or of a family that nobody here can read.
        TokenizerError: its tokenizer is missing or damaged.
    """
    if dtype not in ("fp32", "int8"):
        raise UsageError(f"dtype={dtype!r} is unknown; use fp32 (exact) or int8 (fast)")
    folder = model_folder_of(path)
    model = load_model(folder, device=device)
    if dtype == "int8":
        model = int8_copy(model)
    tokenizer = load_tokenizer(folder)
    if tokenizer.vocab_size > model.config.vocab_size:
        have, know = tokenizer.vocab_size, model.config.vocab_size
        raise ModelFolderError(
            f"{folder}: {have} tokens in the tokenizer, {know} logits in the model; they do not match"
        )
    return model, tokenizer


def load_model(folder: str | os.PathLike[str], *, device: str = "cpu") -> Decoder:
    """The model of a model folder alone, in eval mode."""
    folder = Path(folder)
    given = _read_json(folder / "config.json")
    kind = given.get("model_type")
    if not isinstance(kind, str) or kind not in INTERCHANGE_FAMILIES:
        known = did_you_mean(str(kind), INTERCHANGE_FAMILIES)
        raise ModelFolderError(f"{folder}: model_type {kind!r} is not one that glassformer reads; {known}")
    family = INTERCHANGE_FAMILIES[kind]
    try:
        own = given.get("glassformer") or {}
        fields = family.read_config(given)
        # a bias-free classic model is stored with zero biases, which the family needs; here they go again
        fields["bias"] = own.get("bias", fields.get("bias", family.model_type == "gpt2"))
        config = ModelConfig.make(**fields)
    except KeyError as error:
        raise ModelFolderError(f"{folder / 'config.json'}: {error.args[0]} is missing") from None
    except GlassformerError as error:
        raise ModelFolderError(f"{folder / 'config.json'}: {error}") from None
    except (TypeError, ValueError, AttributeError, ArithmeticError) as error:  # a list where a number belongs
        raise ModelFolderError(f"{folder / 'config.json'}: a field has a value of the wrong kind ({error})") from None
    theirs = load_weights(folder / "model.safetensors")
    try:
        ours = family.read_tensors(theirs, config)
    except KeyError as error:
        raise ModelFolderError(f"{folder / 'model.safetensors'}: tensor {error.args[0]} is missing") from None
    with ShapesOnly():  # the loaded tensors then become the parameters, nothing is drawn
        model = Decoder(config)
    expected = {name: tuple(tensor.shape) for name, tensor in _own_tensors(model).items()}
    ours = {n: t for n, t in ours.items() if n in expected or t.any()}  # drop the zero biases of a bias-free model
    _check_shapes(folder, expected, {name: tuple(tensor.shape) for name, tensor in ours.items()})
    for name, tensor in ours.items():
        if not tensor.is_floating_point():
            raise ModelFolderError(f"{folder}: {name} holds {tensor.dtype}; only floating-point weights can be read")
    model.load_state_dict(ours, strict=False, assign=True)
    model.tie_head()
    return model.eval().to(device)


def model_folder_of(path: str | os.PathLike[str]) -> Path:
    """Where the model lies: the folder itself, or `model/` in it (a run folder, a checkpoint)."""
    folder = Path(path)
    for candidate in (folder, folder / "model"):
        if (candidate / "config.json").is_file():
            return candidate
    if not folder.exists():
        beside = folder.parent
        names = [str(entry) for entry in beside.iterdir() if entry.is_dir()] if beside.is_dir() else []
        hint = did_you_mean(str(folder), names) if names else "train one first: glassformer train shakespeare-fast"
        raise ModelFolderError(f"{folder}: there is no such run or model folder; {hint}")
    if not folder.is_dir():
        raise ModelFolderError(f"{folder}: a file, where the folder of a run or a model is needed")
    if inside := sorted(str(entry.parent.parent) for entry in folder.glob("*/model/config.json")):
        raise ModelFolderError(f"{folder}: holds several runs, name one of them: {', '.join(inside[:20])}")
    raise ModelFolderError(
        f"{folder}: no config.json here nor in its model/ folder; a run gets one at its first evaluation"
    )


def save_weights(path: str | os.PathLike[str], tensors: dict[str, Tensor]) -> None:
    """Write a safetensors file atomically; tensors are copied to the CPU and made contiguous."""
    with atomic_file(path) as temporary:
        plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        try:
            save_file(plain, temporary, metadata={"format": "pt"})
        except SafetensorError as error:  # it wraps the operating system's refusal, whose number stands in the text
            raise _os_error(error) from error


def load_weights(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises:
        ModelFolderError: it is missing, truncated or damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelFolderError(f"{path}: the weights are missing; the folder is incomplete: copy or train it again")
    try:
        with disk_errors(path):
            return load_file(path)
    except (SafetensorError, ValueError) as error:
        raise ModelFolderError(
            f"{path}: damaged or truncated ({str(error).splitlines()[0]}); take an earlier checkpoint or copy it again"
        ) from None


def _own_tensors(model: Decoder, weights: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
    """The state dict (or `weights` in its place) without the second name of a tied head."""
    tensors = dict(model.state_dict() if weights is None else weights)
    if model.config.tied_head:
        tensors.pop("head.weight", None)
    return tensors


def _check_shapes(folder: Path, expected: dict[str, tuple[int, ...]], given: dict[str, tuple[int, ...]]) -> None:
    for name in [*expected, *given]:
        if expected.get(name) != given.get(name):
            asks, holds = expected.get(name), given.get(name)
            raise ModelFolderError(f"{folder}: config.json asks for {name} of shape {asks}, the weights hold {holds}")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        with disk_errors(path):
            if path.stat().st_size > MAX_JSON_BYTES:
                raise ModelFolderError(f"{path}: larger than {MAX_JSON_BYTES >> 20} MiB, which no configuration is")
            data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelFolderError(f"{path}: missing; this is not a model folder") from None
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ModelFolderError(f"{path}: not valid JSON ({error}); copy or train it again") from None
    if not isinstance(data, dict):
        raise ModelFolderError(f"{path}: a JSON object is expected, not {type(data).__name__}")
    return data


def _os_error(error: SafetensorError) -> OSError:
    number = re.search(r"os error (\d+)", str(error))
    return OSError(int(number[1]) if number else 5, str(error))
