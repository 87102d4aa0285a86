"""What a recipe may say, and how overrides are laid over it."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from glassformer.errors import UsageError, did_you_mean
from glassformer.files import disk_errors
from glassformer.models.config import first_mistake

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


class Section(BaseModel):
    """One table of a recipe. Unknown keys are mistakes."""

    model_config = ConfigDict(extra="forbid")


class ModelSection(Section):
    """[model] the shape. What is left out follows from `size`, from the family, or from the dial `n_layer`."""

    size: str | None = None
    family: Literal["classic", "modern"] | None = None
    block_size: int | None = None
    n_layer: int | None = None
    n_head: int | None = None
    n_kv_head: int | None = None
    n_embd: int | None = None
    head_width: int | None = None
    n_hidden: int | None = None
    positions: str | None = None
    rotary_base: float | None = None
    norm: str | None = None
    norm_eps: float | None = None
    feedforward: str | None = None
    activation: str | None = None
    bias: bool | None = None
    qk_norm: bool | None = None
    tied_head: bool | None = None


class TokenizerSection(Section):
    """[tokenizer] kind, or `path` to one that exists (a folder with tokenizer.json, a run, a .model file)."""

    kind: str | None = None
    vocab_size: int | None = Field(default=None, ge=1)
    path: str | None = None


class DataSection(Section):
    """[data] a corpus by name, a file, a folder, `-` for standard input, or a hub dataset `owner/name`."""

    source: str = "tinyshakespeare"
    validation_fraction: float = Field(default=0.1, gt=0, lt=1)
    text_field: str = "text"
    max_tokens: int | None = Field(default=None, ge=1)


class ObjectiveSection(Section):
    """[objective] what is asked of the model."""

    kind: Literal["next_token"] = "next_token"


class TrainingSection(Section):
    """[training] how. A step is one update of the weights; `batch_size` counts sequences of block_size tokens a step.

    micro_batch_size: how many sequences go through at once; gradients of the others are added up (accumulation).
    eval_batches: 0 evaluates on the whole validation split, N on N fixed batches (the last step: always the whole).
    learning_rate: AdamW's. matrix_learning_rate: Muon's, for the matrices inside the blocks.
    """

    steps: int | None = Field(default=None, ge=1)
    batch_size: int | None = Field(default=None, ge=1)
    micro_batch_size: int | None = Field(default=None, ge=1)
    seed: int = Field(default=1337, ge=0, lt=2**63)
    eval_every: int | None = Field(default=None, ge=0)
    eval_batches: int = Field(default=0, ge=0)
    sample_every: int | None = Field(default=None, ge=0)
    sample_tokens: int = Field(default=200, ge=1)
    sample_prompt: str = ""
    checkpoint_every: int | None = Field(default=None, ge=0)
    keep_checkpoints: int = Field(default=3, ge=1)
    init: str = "gpt2"
    dropout: float = Field(default=0.0, ge=0, lt=1)
    optimizer: str = "adamw"
    learning_rate: float | None = Field(default=None, gt=0)
    matrix_learning_rate: float = Field(default=0.02, gt=0)
    beta1: float = Field(default=0.9, ge=0, lt=1)
    beta2: float = Field(default=0.95, ge=0, lt=1)
    weight_decay: float = Field(default=0.1, ge=0)
    grad_clip: float = Field(default=1.0, ge=0)
    schedule: str = "cosine"
    warmup_steps: int | None = Field(default=None, ge=0)
    final_lr_fraction: float = Field(default=0.1, ge=0, le=1)
    cooldown_fraction: float = Field(default=0.4, ge=0, le=1)
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    compile: Literal["auto", "on", "off"] = "auto"
    device: str = "auto"


class Recipe(Section):
    """A whole recipe. `name` is where the run folder gets its name from."""

    name: str = "run"
    model: ModelSection = ModelSection()
    tokenizer: TokenizerSection = TokenizerSection()
    data: DataSection = DataSection()
    training: TrainingSection = TrainingSection()
    objective: ObjectiveSection = ObjectiveSection()


SECTIONS = tuple(name for name in Recipe.model_fields if name != "name")


def builtin_recipes() -> dict[str, Path]:
    """The recipes that come with the package, by name."""
    folder = Path(str(resources.files("glassformer.recipes")))
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def read_recipe(name_or_path: str | None, overrides: Iterable[str] = ()) -> Recipe:
    """A built-in recipe by name or a `.toml` file by path (None: an empty one), with `section.key=value` on top.

    Raises:
        UsageError: no such recipe, not TOML, an unknown key, a value that does not fit.
    """
    data: dict[str, Any] = {}
    if name_or_path is not None:
        path = find_recipe(name_or_path)
        with disk_errors(path):
            text = path.read_bytes()
        try:
            data = tomllib.loads(text.decode("utf-8"))
        except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise UsageError(f"{path}: not valid TOML: {error}") from None
        data.setdefault("name", path.stem)
    for override in overrides:
        _lay_over(data, override)
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        where = error.errors()[0]["loc"]
        section = Recipe.model_fields[str(where[0])].annotation if where[0] in Recipe.model_fields else None
        known = section if len(where) > 1 and isinstance(section, type) and issubclass(section, Section) else Recipe
        raise UsageError(first_mistake(error, known)) from None


def find_recipe(name_or_path: str) -> Path:
    """The file of a built-in recipe, or the path itself.

    Raises:
        UsageError: there is neither.
    """
    known = builtin_recipes()
    if name_or_path in known:
        return known[name_or_path]
    if (path := Path(name_or_path)).is_file():
        return path
    raise UsageError(
        f"there is no recipe {name_or_path!r}: {did_you_mean(name_or_path, known)} "
        "(to train on your own text: glassformer train --data FILE)"
    )


def _lay_over(data: dict[str, Any], override: str) -> None:
    """Put one `section.key=value` into the table; the value is read as TOML, or as plain text when it is none."""
    key, equals, text = override.partition("=")
    section, dot, field = key.strip().partition(".")
    if not equals or not dot or not field:
        raise UsageError(f"override {override!r} is not of the form section.key=value, for example training.steps=500")
    if section not in SECTIONS:
        raise UsageError(f"unknown section {section!r} in {override!r}; {did_you_mean(section, SECTIONS)}")
    try:
        value = tomllib.loads(f"value = {text.strip()}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    data.setdefault(section, {})[field] = value
