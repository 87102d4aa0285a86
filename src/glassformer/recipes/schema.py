"""What a recipe may say, and how overrides are laid over it."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    WrapValidator,
    create_model,
    model_validator,
)
from pydantic.fields import FieldInfo

from glassformer import plugins
from glassformer.data.batches import ORDERS
from glassformer.errors import UsageError, did_you_mean
from glassformer.files import disk_errors
from glassformer.models import INITS, MODELS, config_fields, kinds_that_answer
from glassformer.models.mistakes import first_mistake
from glassformer.tasks import OBJECTIVES
from glassformer.text_files import decode
from glassformer.training import ON_DIVERGENCE, OPTIMIZERS, SCHEDULES, SHARDINGS, TRACKERS
from glassformer.training.migrations import SECTION_NAMES, rename_sections

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


class Section(BaseModel):
    """One table of a recipe. Unknown keys are mistakes."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


Count = Annotated[int | None, Field(ge=1)]


def _or_auto(value: Any, check: Any) -> Any:
    """`auto`, or what the check makes of it; a plain union would tell of both mistakes."""
    return value if value == "auto" else check(value)


if TYPE_CHECKING:
    CountOrAuto = int | Literal["auto"] | None
else:
    CountOrAuto = Annotated[int | None, Field(ge=1), WrapValidator(_or_auto)]


def _one_of(key: str, known: Collection[str], *, extensible: bool = False) -> AfterValidator:
    """A name out of a set, checked when the recipe is read and not when the part is built. extensible: plug-ins can add
    to it."""

    def check(value: str | None) -> str | None:
        if value is not None and value not in known:
            told = f"{key}={value!r} is unknown; {did_you_mean(value, known)}"
            raise UsageError(plugins.unknown(key, value, known) if extensible else told)
        return value

    return AfterValidator(check)


def _listed(value: Any) -> Any:
    """`training.track=tensorboard,wandb` on the command line is a list too."""
    return [name.strip() for name in value.split(",") if name.strip()] if isinstance(value, str) else value


class ModelSection(Section):
    """[model] the shape. What is left out follows from `size`, from the family, or from the dial `n_layer`; of a model
    that a run starts from, from that model.

    kind: of `models.MODELS`; left out, what the objective asks for. All other keys are fields of that kind's own
    configuration, which also checks their values; what the data decide (`DECIDED`) is no key.
    """

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)

    kind: Annotated[str | None, _one_of("model.kind", MODELS, extensible=True)] = None
    size: str | None = None

    @property
    def fields(self) -> dict[str, Any]:
        """What is set of the configuration."""
        return {name: value for name, value in (self.model_extra or {}).items() if value is not None}

    def get(self, name: str) -> Any:
        """A field of the configuration, or None where it is not set."""
        return self.fields.get(name)

    def set(self, name: str, value: Any) -> None:
        """Set a field of the configuration."""
        setattr(self, name, value)

    def check_fields(self, kinds: Sequence[str]) -> None:
        """Check every key by itself against the fields of these kinds' configurations, and bring its value to the type
        of the field. What does not fit together is found when a configuration is made of them.

        Raises:
            UsageError: an unknown key, or a value that does not fit.
        """
        known: dict[str, FieldInfo] = {}
        for kind in reversed(kinds):
            known |= config_fields(kind)
        for name, value in self.fields.items():
            if name in DECIDED:
                raise UsageError(f"model.{name} is decided by {DECIDED[name]}; leave it out")
            if name not in known:
                raise UsageError(_unknown_field(name, [key for key in known if key not in DECIDED]))
            field: dict[str, Any] = {name: (known[name].annotation, known[name])}
            given = create_model("Given", __config__=Section.model_config, **field)
            try:
                checked = given.model_validate({name: value}).model_dump(exclude_none=True)
            except ValidationError as error:
                raise UsageError(first_mistake(error, given, prefix="model.")) from None
            self.set(name, checked.get(name))


# fields of configurations that no recipe sets, and what decides them
DECIDED = {
    "vocab_size": "the tokenizer (tokenizer.vocab_size)",
    "source_vocab_size": "the sources' tokenizer (tokenizer.source_kind)",
    "start_token": "the tokenizer",
    "end_token": "the tokenizer",
    "pad_token": "the tokenizer",
    "n_classes": "the labels of the data",
    "token_head": "the objective",
}


def _unknown_field(name: str, known: Iterable[str]) -> str:
    homes = [home for home in SECTIONS if home != "model" and name in _keys(home)]
    return f"unknown key model.{name}; " + (
        f"did you mean {homes[0]}.{name}?" if homes else did_you_mean(name, ["kind", "size", *known])
    )


class TokenizerSection(Section):
    """[tokenizer] kind, or `path` to one that exists (a folder with tokenizer.json, a run, a .model file).

    source_kind: of the sources' own tokenizer, where examples have sources and targets in different symbols.
    """

    kind: str | None = None
    vocab_size: int | None = Field(default=None, ge=1)
    path: str | None = None
    source_kind: str | None = None


class DataSection(Section):
    """[data] a corpus by name, a file, a folder, `-` for standard input, or a hub dataset `owner/name`.

    order: in which the windows of the text come (`TokenBatches`): epochs, random or consecutive.
    max_examples: of the training split, where the source is a set of examples.
    """

    source: str = Field(default="tinyshakespeare", min_length=1)
    validation_fraction: float = Field(default=0.1, gt=0, lt=1)
    text_field: str = "text"
    max_tokens: int | None = Field(default=None, ge=1)
    max_examples: Count = None
    order: Annotated[str, _one_of("data.order", ORDERS)] = "epochs"


class TaskSection(Section):
    """[task] what is asked of the model: a `kind` of `tasks.OBJECTIVES`, and its own settings."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)

    kind: Annotated[str, _one_of("task.kind", OBJECTIVES, extensible=True)] = "next_token"

    @model_validator(mode="after")
    def _check_settings(self) -> TaskSection:
        objective: Any = OBJECTIVES[self.kind]
        objective.Settings.make(**self.settings)
        return self

    @property
    def settings(self) -> dict[str, Any]:
        """What is set beside the kind."""
        return dict(self.model_extra or {})


class TrainingSection(Section):
    """[training] how. A step is one update of the weights; `batch_size` counts sequences of block_size tokens a step,
    of all processes together; `auto` is what the machine and the text have room for.

    micro_batch_size: how many sequences go through at once; gradients of the others are added up (accumulation).
    eval_batches: 0 evaluates on the whole validation split, N on N fixed batches (the last step: always the whole).
    sharding: full spreads the weights over the processes that torchrun started. on_divergence: stop, skip or lower.
    lag_steps: 1 reads the numbers of a step while the next one is computed, so that a GPU does not wait for them; a
        divergence is then noticed one step late, and only checkpoints hold weights from before it.
    watch_activations: statistics of every tap at evaluations, in diagnostics.jsonl.
    track: who else gets the records, of TRACKERS: tensorboard, wandb.
    dropout: on the embedding and on what each layer adds; and on attention weights unless attention_dropout is set.
    token_dropout: the share of tokens that are read as another one from the batch.
    sequence_length: tokens of a training sequence; left out, as many as the model reads (model.block_size).
    start_from: a run, a model folder or the name of a pulled model, whose configuration, tokenizer and weights this run
        begins with (`recipes.start`).
    learning_rate: AdamW's, Adagrad's and SGD's. matrix_learning_rate: Muon's, for the matrices inside the blocks.
    momentum: Muon's and SGD's; nesterov: of SGD, look one step ahead along it (Muon always does).
    accumulator_start: what Adagrad's sums of squared gradients begin with.
    """

    steps: int | None = Field(default=None, ge=1)
    sequence_length: int | None = Field(default=None, ge=1)
    batch_size: CountOrAuto = None
    micro_batch_size: int | None = Field(default=None, ge=1)
    seed: int = Field(default=1337, ge=0, lt=2**63)
    eval_every: int | None = Field(default=None, ge=0)
    eval_batches: int = Field(default=0, ge=0)
    sample_every: int | None = Field(default=None, ge=0)
    sample_tokens: int = Field(default=200, ge=1)
    sample_prompt: str = ""
    checkpoint_every: int | None = Field(default=None, ge=0)
    keep_checkpoints: int = Field(default=3, ge=1)
    start_from: str | None = None
    init: Annotated[str, _one_of("training.init", INITS)] = "gpt2"
    dropout: float = Field(default=0.0, ge=0, lt=1)
    attention_dropout: float | None = Field(default=None, ge=0, lt=1)
    token_dropout: float = Field(default=0.0, ge=0, lt=1)
    optimizer: Annotated[str, _one_of("training.optimizer", OPTIMIZERS)] = "adamw"
    learning_rate: float | None = Field(default=None, gt=0)
    matrix_learning_rate: float = Field(default=0.02, gt=0)
    momentum: float = Field(default=0.95, ge=0, lt=1)
    nesterov: bool = False
    accumulator_start: float = Field(default=0.0, ge=0)
    beta1: float = Field(default=0.9, ge=0, lt=1)
    beta2: float = Field(default=0.95, ge=0, lt=1)
    weight_decay: float = Field(default=0.1, ge=0)
    grad_clip: float = Field(default=1.0, ge=0)
    schedule: Annotated[str, _one_of("training.schedule", SCHEDULES, extensible=True)] = "cosine"
    warmup_steps: int | None = Field(default=None, ge=0)
    final_lr_fraction: float = Field(default=0.1, ge=0, le=1)
    cooldown_fraction: float = Field(default=0.4, ge=0, le=1)
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    compile: Literal["auto", "on", "off"] = "auto"
    device: str = "auto"
    track: Annotated[list[Annotated[str, _one_of("training.track", TRACKERS)]], BeforeValidator(_listed)] = []
    sharding: Annotated[str, _one_of("training.sharding", SHARDINGS)] = "none"
    on_divergence: Annotated[str, _one_of("training.on_divergence", ON_DIVERGENCE)] = "stop"
    lag_steps: int = Field(default=0, ge=0, le=1)
    watch_activations: bool = False

    @property
    def dropouts(self) -> dict[str, Any]:
        """What a decoder is told about dropping out."""
        return {name: getattr(self, name) for name in ("dropout", "attention_dropout", "token_dropout")}


class Recipe(Section):
    """A whole recipe. `name` is where the run folder gets its name from."""

    name: str = "run"
    model: ModelSection = ModelSection()
    tokenizer: TokenizerSection = TokenizerSection()
    data: DataSection = DataSection()
    training: TrainingSection = TrainingSection()
    task: TaskSection = TaskSection()
    _asked: frozenset[str] = PrivateAttr(default=frozenset())

    @property
    def asked(self) -> frozenset[str]:
        """`section.key` of what was asked for beside the recipe (overrides, flags), and in the recipe itself where it
        names the model to start from."""
        return self._asked

    @model_validator(mode="after")
    def _check_model(self) -> Recipe:
        kinds = kinds_that_answer(OBJECTIVES[self.task.kind].asks)
        starting = self.training.start_from is not None  # then the kind is that model's
        self.model.check_fields([self.model.kind] if self.model.kind else kinds if starting else kinds[:1])
        return self


SECTIONS = tuple(name for name in Recipe.model_fields if name != "name")


def builtin_recipes() -> dict[str, Path]:
    """The recipes that come with the package, by name."""
    folder = Path(str(resources.files("glassformer.recipes")))
    return {path.stem: path for path in sorted(folder.glob("*.toml"), key=lambda path: path.stem)}


def read_recipe(
    name_or_path: str | None, overrides: Iterable[str] = (), flags: Mapping[str, Mapping[str, Any]] | None = None
) -> Recipe:
    """A built-in recipe by name or a `.toml` file by path (None: an empty one), with settings laid over it.

    Args:
        overrides: `section.key=value`. flags: the same as `{section: {key: value}}`; a None is left out.

    Raises:
        UsageError: no such recipe, not TOML, an unknown key, a value that does not fit, a setting given in both ways.
    """
    plugins.load_installed()
    data: dict[str, Any] = {}
    asked: set[str] = set()
    overrides = list(overrides)
    if name_or_path is not None:
        path = find_recipe(name_or_path)
        data = _read_toml(path)
        data.setdefault("name", path.stem)
        try:
            _validated(data)
        except UsageError as error:
            raise UsageError(f"{path}: {error}") from None
        if data.get("training", {}).get("start_from"):
            asked = {f"{home}.{key}" for home in SECTIONS for key in data.get(home, {})}
    for override in overrides:
        section, key, value = _parse(override)
        if (flags or {}).get(section, {}).get(key) is not None:
            raise UsageError(f"{section}.{key} is given twice, as --{_FLAGS.get(key, key)} and as {override}; use one")
        data.setdefault(section, {})[key] = value
        if (section, key) == ("model", "kind") and value in MODELS:  # then a shape made for another kind is none
            known = {"kind", *config_fields(value)}
            own = [_parse(other)[1] for other in overrides if other.startswith("model.")]
            data["model"] = {k: v for k, v in data["model"].items() if k in known or k in own}
    for section, fields in (flags or {}).items():
        data.setdefault(section, {}).update({key: value for key, value in fields.items() if value is not None})
    recipe = _validated(data)
    asked |= {".".join(_parse(override)[:2]) for override in overrides}
    asked |= {f"{home}.{key}" for home, fields in (flags or {}).items() for key in fields if fields[key] is not None}
    recipe._asked = frozenset(asked)
    return recipe


def changed_recipe(r: Recipe, overrides: Iterable[str], allowed: Collection[str]) -> Recipe:
    """A resolved recipe with other values for those of its keys that may still change.

    Raises:
        UsageError: an unknown key, a value that does not fit, or a key that may not change.
    """
    data = r.model_dump(exclude_none=True)
    given = [_parse(override) for override in overrides]
    for section, key, value in given:
        data[section][key] = value
    changed = _validated(data)
    for section, key, _ in given:
        if f"{section}.{key}" not in allowed:
            raise UsageError(
                f"{section}.{key} cannot change when a run goes on, for what is done was done with it; "
                f"{', '.join(sorted(allowed))} can; for all else start another run: glassformer train --data TEXT "
                "training.start_from=RUN"
            )
    return changed


_FLAGS = {"source": "data"}  # where the option has another name than the key


def _read_toml(path: Path) -> dict[str, Any]:
    with disk_errors(path):
        content = path.read_bytes()
    try:
        return rename_sections(tomllib.loads(decode(content)), str(path))
    except UnicodeDecodeError:
        reason = "not UTF-8 text"
    except tomllib.TOMLDecodeError as error:
        reason = f"not TOML: {str(error)[0].lower()}{str(error)[1:]}"
    advice = "mend it" if path.suffix == ".toml" else f"to train on it as a text: glassformer train --data {path}"
    raise UsageError(f"{path} is no recipe ({reason}); {advice}")


def _validated(data: dict[str, Any]) -> Recipe:
    """Raises one `UsageError` of one line about the first mistake."""
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = [str(part) for part in first["loc"]]
        if not where:  # about more than one section: already one line in our words
            raise UsageError(first_mistake(error, Recipe)) from None
        elsewhere = [name for name in SECTIONS if name != where[0] and where[-1] in _keys(name)]
        if first["type"] == "extra_forbidden" and elsewhere:
            raise UsageError(f"unknown key {'.'.join(where)}; did you mean {elsewhere[0]}.{where[-1]}?") from None
        known = _section(where[0]) if len(where) > 1 and where[0] in SECTIONS else Recipe
        raise UsageError(first_mistake(error, known)) from None


def _section(name: str) -> type[Section]:
    section = Recipe.model_fields[name].annotation
    assert isinstance(section, type) and issubclass(section, Section)
    return section


def _keys(section: str) -> set[str]:
    """What may be set in a section; of [model] in any kind of model."""
    fields = {field for kind in MODELS for field in config_fields(kind)} - DECIDED.keys() if section == "model" else ()
    return {*_section(section).model_fields, *fields}


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
    if path.is_dir():
        raise UsageError(
            f"{path} is a folder, not a recipe; to train on the texts in it: glassformer train --data {path}"
        )
    beside = [str(path.parent / other.name) for other in path.parent.glob("*.toml")] if path.parent.is_dir() else []
    near = did_you_mean(name_or_path, [*known, *beside])
    raise UsageError(
        f"there is no recipe {name_or_path!r}; {near if near.startswith('did') else did_you_mean(name_or_path, known)}"
    )


def _parse(override: str) -> tuple[str, str, Any]:
    """(section, key, value) of one `section.key=value`; the value is TOML, or plain text when it is none."""
    name, equals, text = override.partition("=")
    section, dot, key = name.strip().partition(".")
    section = SECTION_NAMES.get(section, section)
    if not equals or not dot or not key:
        homes = [home for home in SECTIONS if name.strip() in _keys(home)]
        example = f"did you mean {homes[0]}.{name.strip()}?" if homes else "for example training.steps=500"
        raise UsageError(f"{override!r} is not of the form section.key=value; {example}")
    if section not in SECTIONS:
        raise UsageError(f"unknown section {section!r} in {override!r}; {did_you_mean(section, SECTIONS)}")
    try:
        value = tomllib.loads(f"value = {text.strip()}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    return section, key, value
