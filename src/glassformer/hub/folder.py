"""Model folders: write one that `transformers` loads, read one that it or we wrote."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from glassformer.errors import ModelFolderError
from glassformer.files import atomic_folder, write_json
from glassformer.hub.bundle import Bundle
from glassformer.hub.configuration import generates, read_config, read_json, read_labels, write_config
from glassformer.hub.families.family import is_classifier
from glassformer.hub.families.registry import family_for
from glassformer.hub.generation_config import read_generation_settings
from glassformer.hub.sentence_transformers import apply_pooling, apply_text_limits
from glassformer.hub.state_dict import model_of, untied_state
from glassformer.hub.weights import load_sharded, save_weights
from glassformer.models import GenerationSettings, answers_of, settings_of
from glassformer.processors import load_processor, load_token_processor
from glassformer.processors.tokenizers import Tokenizer, load_tokenizer
from glassformer.processors.tokenizers.reading import load_source_tokenizer_of

SOURCE = "source"  # the folder inside a model's with the tokenizer of what it reads


def save(
    folder: str | os.PathLike[str],
    model: Any,
    tokenizer: Any = None,
    source_tokenizer: Any = None,
    *,
    weights: dict[str, Tensor] | None = None,
    labels: Sequence[str] = (),
    beside: Mapping[str, dict[str, Any]] | None = None,
) -> None:
    """Write a Hugging Face model folder, whole or not at all; an existing one is replaced when the new one is whole.

    Args:
        model: any model of `glassformer.models.MODELS`, or a `Bundle`, which brings its processors and labels.
        tokenizer: of what it writes; or any processor. source_tokenizer: of what it reads, where that is another one.
        weights: a state dict that is written in place of the model's own: a snapshot, while training continues.
        labels: the names of the classes of a classifier, in the order of its logits.
        beside: further JSON files, by their names; fields of generation_config.json join those that are written anyway.

    Raises:
        ModelFolderError: the folder holds other things and no model, which would be lost; or there is not one label for
            each class.
        GlassformerError: the disk is full or the folder cannot be written; the old folder is untouched.
    """
    if isinstance(model, Bundle):
        tokenizer = tokenizer or model.token_processor or model.processor
        own_source = None if model.source_processor is model.processor else model.source_processor
        source_tokenizer = source_tokenizer or own_source
        model, labels = model.model, labels or model.labels
    folder = Path(folder)
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "config.json").is_file():
        raise ModelFolderError(f"{folder}: holds other things than a model; choose an empty or a new folder")
    family = family_for(model.config)
    tensors = untied_state(model, weights)
    text = tokenizer if isinstance(tokenizer, Tokenizer) else None
    config, generation = write_config(family, model.config, text, labels, settings_of(model))
    written = {"generation_config.json": generation} if generation is not None else {}
    kept_as = next(tensor.dtype for tensor in tensors.values() if tensor.is_floating_point())
    with atomic_folder(folder, replace=True) as temporary:
        write_json(temporary / "config.json", {**config, "torch_dtype": str(kept_as).removeprefix("torch.")})
        for name in {**written, **(beside or {})}:
            write_json(temporary / name, {**written.get(name, {}), **(beside or {}).get(name, {})})
        save_weights(temporary / "model.safetensors", family.write_tensors(tensors, model.config))
        if tokenizer is not None:
            tokenizer.save(temporary)
        if source_tokenizer is not None and source_tokenizer != tokenizer:
            is_text = isinstance(source_tokenizer, Tokenizer)  # other processors have files of another name
            source_tokenizer.save(temporary / SOURCE if is_text else temporary)


def open_folder(folder: Path, *, device: str = "cpu", with_processor: bool = True) -> Bundle:
    """The model of a model folder in eval mode, with its processors and labels. Raises as `load`."""
    model = load_model(folder, device=device)
    if not with_processor:
        return Bundle(model)
    processor, source_processor = load_processors(folder, model.config)
    if isinstance(processor, Tokenizer):
        set_generation_settings(model, processor, settings_of(model))
    token_processor = load_token_processor(folder) if generates(model.config) and model.reads == "text" else None
    return Bundle(model, processor, source_processor, read_labels(folder), token_processor)


def load_processors(folder: Path, config: Any) -> tuple[Any, Any]:
    """The processors of what a model writes and of what it reads (of an encoder: twice the one of what it reads).
    Raises as `load`."""
    reads, has_target = config.reads, "target" in answers_of(config)
    if has_target:
        processor: Any = load_processor("text", folder)
        source = own_source_tokenizer(folder) or processor if reads == "text" else load_processor(reads, folder)
    else:
        processor = source = load_processor(reads, folder)
    if isinstance(processor, Tokenizer):
        apply_text_limits(processor, config, folder)
        check_vocabulary(folder, processor, config.vocab_size, "logits")
    if isinstance(source, Tokenizer) and has_target:
        rows = getattr(config, "source_vocab_size", None) or getattr(config, "encoder", config).vocab_size
        check_vocabulary(folder, source, rows, "rows for them")
    return processor, source


def own_source_tokenizer(folder: Path) -> Tokenizer | None:
    """The tokenizer of what a model reads, where its folder has one beside that of what it writes: in `source/`, or in
    Marian's form."""
    if (folder / SOURCE).is_dir():
        return load_tokenizer(folder / SOURCE)
    return load_source_tokenizer_of(folder)


def set_generation_settings(model: Any, tokenizer: Tokenizer, settings: GenerationSettings) -> None:
    """Let a model carry its settings, and its tokenizer know which tokens end a text."""
    model.generation_settings = settings
    tokenizer.further_ends = frozenset(i for i in settings.eos_token_id if i < tokenizer.vocab_size)


def load_model(folder: str | os.PathLike[str], *, device: str = "cpu") -> Any:
    """The model of a model folder alone, in eval mode. Raises `ModelFolderError` as `load`."""
    folder = Path(folder)
    family, config = read_config(folder)
    model = model_of(family, config, load_sharded(folder), folder).to(device)
    apply_pooling(model, folder)
    if generates(config) or is_classifier(config):  # whose padding transformers needs
        model.generation_settings = read_generation_settings(folder, read_json(folder / "config.json"))
    return model


def check_vocabulary(where: str | os.PathLike[str], tokenizer: Tokenizer, rows: int, what: str) -> None:
    """Raise `ModelFolderError` if a token that text can become has no row in the model. Added tokens need none:
    published tokenizers have some (Gemma 3's marks for images); they are refused in prompts and never sampled."""
    if tokenizer.n_text_ids > rows:
        counts = f"{tokenizer.vocab_size:,} tokens in the tokenizer, {rows:,} {what} in the model"
        raise ModelFolderError(f"{where}: {counts}; they do not belong together: take the tokenizer of this model")
