"""A recipe as a person writes it: a TOML file of five sections. `reading.py` reads one, `resolve.py` decides what it
leaves open. Recipes are frozen."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    AfterValidator,
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
from glassformer.errors import UsageError, did_you_mean
from glassformer.models import INITS, MODELS, config_fields, kinds_that_answer
from glassformer.models.mistakes import first_mistake
from glassformer.tasks import TASKS, DataSettings, TokenizerSettings, task_kind
from glassformer.tasks.settings import Section
from glassformer.training import ON_DIVERGENCE, OPTIMIZERS, SCHEDULES, SHARDINGS, TRACKERS

if TYPE_CHECKING:
    from typing_extensions import Self


def _or_auto(value: Any, check: Any) -> Any:
    """`auto`, or a number; a plain union would complain twice."""
    return value if value == "auto" else check(value)


if TYPE_CHECKING:
    CountOrAuto = int | Literal["auto"] | None
else:
    CountOrAuto = Annotated[int | None, Field(ge=1), WrapValidator(_or_auto)]


def _one_of(key: str, known: Collection[str], *, extensible: bool = False) -> AfterValidator:
    """A name out of a set, which plug-ins may have added to if it is extensible."""

    def check(value: str | None) -> str | None:
        if value is not None and value not in known:
            line = f"{key}={value!r} is unknown; {did_you_mean(value, known)}"
            raise UsageError(plugins.unknown(key, value, known) if extensible else line)
        return value

    return AfterValidator(check)


def _listed(value: Any) -> Any:
    """`training.track=tensorboard,wandb` on the command line is a list too."""
    return [name.strip() for name in value.split(",") if name.strip()] if isinstance(value, str) else value


Trackers = Annotated[list[Annotated[str, _one_of("training.track", TRACKERS)]], BeforeValidator(_listed)]

# fields of configurations that no recipe sets, and what decides them
DECIDED = {
    "vocab_size": "the tokenizer (tokenizer.vocab_size)",
    "source_vocab_size": "the sources' tokenizer (tokenizer.source_kind)",
    "source_block_size": "the sounds (task.seconds)",
    "n_mels": "the task (task.n_mels)",
    "start_token": "the tokenizer",
    "end_token": "the tokenizer",
    "pad_token": "the tokenizer",
    "n_classes": "the labels of the data",
    "token_head": "the task",
}


class ModelSection(Section):
    """[model] All keys but these two are fields of the configuration of the model's kind, which validates them; what
    the data decide (`DECIDED`) is no key. Left out, they follow from `size`, the family or the dial `n_layer`; in a run
    that starts from a model, from that model."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False, frozen=True)

    kind: Annotated[str | None, _one_of("model.kind", MODELS, extensible=True)] = None
    """of `models.MODELS`; None: the first that can do the task"""
    size: str | None = None
    """of `models.SIZES`"""

    @property
    def fields(self) -> dict[str, Any]:
        """The fields of the configuration that are set."""
        return {name: value for name, value in (self.model_extra or {}).items() if value is not None}

    def get(self, name: str) -> Any:
        """A field of the configuration, or None where it is not set."""
        return self.fields.get(name)

    def checked(self, kinds: Sequence[str]) -> dict[str, Any]:
        """The fields that are set, each checked by itself against the configurations of these kinds. Whether they fit
        together is checked when a configuration is made of them.

        Raises:
            UsageError: an unknown key, or a value that does not fit.
        """
        known: dict[str, FieldInfo] = {}
        for kind in reversed(kinds):
            known |= config_fields(kind)
        for name in self.fields:
            if name in DECIDED:
                raise UsageError(f"model.{name} is decided by {DECIDED[name]}; leave it out")
            if name not in known:
                keys = ["kind", "size", *(key for key in known if key not in DECIDED)]
                homes = [home for home in homes_of(name) if home != "model"]
                hint = f"did you mean {homes[0]}.{name}?" if homes else did_you_mean(name, keys)
                raise UsageError(f"unknown key model.{name}; {hint}")
        fields: Any = {name: (known[name].annotation, known[name]) for name in self.fields}
        given = create_model("Given", __config__=Section.model_config, **fields)
        try:
            return given.model_validate(self.fields).model_dump(exclude_none=True)
        except ValidationError as error:
            raise UsageError(first_mistake(error, given, prefix="model.")) from None


class TaskSection(Section):
    """[task] What the model learns to do. All keys but `kind` are the task's own (its `Settings`)."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False, frozen=True)

    kind: Annotated[str, AfterValidator(task_kind)] = "next_token"
    """of `tasks.TASKS`"""

    @model_validator(mode="after")
    def _check_settings(self) -> Self:
        TASKS[self.kind].Settings.make(**self.settings)
        return self

    @property
    def settings(self) -> dict[str, Any]:
        """What is set beside the kind."""
        return dict(self.model_extra or {})


class TrainingSection(Section):
    """[training] A step is one update of the weights."""

    steps: int | None = Field(default=None, ge=1)
    sequence_length: int | None = Field(default=None, ge=1)
    """tokens of a training sequence; None: as many as the model reads (model.block_size)"""
    batch_size: CountOrAuto = None
    """sequences of a step, of all processes together; auto: `batch_size.py` tries what is fastest here"""
    micro_batch_size: int | None = Field(default=None, ge=1)
    """sequences that go through at once; gradients of the others are added up"""
    seed: int = Field(default=1337, ge=0, lt=2**63)
    eval_every: int | None = Field(default=None, ge=0)
    eval_batches: int = Field(default=0, ge=0)
    """0 evaluates on the whole validation split, N on N fixed batches (after the last step always on the whole)"""
    sample_every: int | None = Field(default=None, ge=0)
    sample_tokens: int = Field(default=200, ge=1)
    sample_prompt: str = ""
    checkpoint_every: int | None = Field(default=None, ge=0)
    keep_checkpoints: int = Field(default=3, ge=1)
    start_from: str | None = None
    """a run, a model folder or a pulled model, whose configuration, tokenizer and weights the run begins with"""
    init: Annotated[str, _one_of("training.init", INITS)] = "gpt2"
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """on the embedding, on what each layer adds, and on attention weights unless attention_dropout is set"""
    attention_dropout: float | None = Field(default=None, ge=0, lt=1)
    token_dropout: float = Field(default=0.0, ge=0, lt=1)
    lora_rank: int | None = Field(default=None, ge=1)
    """train low-rank adapters of the model that the run starts from, and keep its weights (`layers/lora.py`)"""
    lora_alpha: float | None = Field(default=None, gt=0)
    """an adapter counts lora_alpha / lora_rank; None: twice the rank"""
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    lora_targets: Literal["all", "attention", "feedforward"] = "all"
    """the linear layers of the blocks that get one"""
    """share of the tokens that are read as another one from the batch"""
    optimizer: Annotated[str, _one_of("training.optimizer", OPTIMIZERS)] = "adamw"
    learning_rate: float | None = Field(default=None, gt=0)
    """of AdamW, Adagrad and SGD"""
    matrix_learning_rate: float = Field(default=0.02, gt=0)
    """of Muon, for the matrices inside the blocks"""
    momentum: float = Field(default=0.95, ge=0, lt=1)
    """of Muon and SGD"""
    nesterov: bool = False
    """of SGD: the gradient one step ahead along the momentum (Muon always does)"""
    accumulator_start: float = Field(default=0.0, ge=0)
    """what Adagrad's sums of squared gradients begin with"""
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
    track: Trackers = Field(default=[])
    """who else gets the records: tensorboard, wandb"""
    sharding: Annotated[str, _one_of("training.sharding", SHARDINGS)] = "none"
    """full spreads the weights over the processes that torchrun started"""
    on_divergence: Annotated[str, _one_of("training.on_divergence", ON_DIVERGENCE)] = "stop"
    lag_steps: int = Field(default=0, ge=0, le=1)
    """1 reads the numbers of a step while the next one is computed, so that a GPU need not wait; a divergence is then
    noticed one step late, and only checkpoints hold weights from before it"""
    watch_activations: bool = False
    """statistics of every tap at evaluations, in diagnostics.jsonl"""

    @model_validator(mode="after")
    def _check_lora(self) -> Self:
        given = [key for key in ("lora_alpha", "lora_dropout", "lora_targets") if key in self.model_fields_set]
        if self.lora_rank is None and any(getattr(self, key) not in (None, 0.0, "all") for key in given):
            raise UsageError(f"training.{given[0]} belongs to LoRA; add training.lora_rank=16, or leave it out")
        if self.lora_rank is not None and self.start_from is None:
            raise UsageError("training.lora_rank adapts an existing model; add training.start_from=MODEL")
        if self.lora_rank is not None and self.sharding != "none":
            raise UsageError("training.lora_rank and training.sharding=full do not go together; leave one out")
        return self

    @property
    def dropouts(self) -> dict[str, Any]:
        """What `build_model` takes."""
        return {name: getattr(self, name) for name in ("dropout", "attention_dropout", "token_dropout")}


class Recipe(Section):
    """A whole recipe."""

    name: str = "run"
    """from which the run folder gets its name"""
    model: ModelSection = ModelSection()
    tokenizer: TokenizerSettings = TokenizerSettings()
    data: DataSettings = DataSettings()
    training: TrainingSection = TrainingSection()
    task: TaskSection = TaskSection()
    _asked: frozenset[str] = PrivateAttr(default=frozenset())

    @model_validator(mode="after")
    def _check_sharding(self) -> Self:
        if TASKS[self.task.kind].on_policy and self.training.sharding != "none":
            raise UsageError(
                f"training.sharding={self.training.sharding} spreads the weights, and task.kind={self.task.kind} "
                "generates with whole ones; leave it out"
            )
        return self

    @property
    def asked(self) -> frozenset[str]:
        """`section.key` of what was given beside the recipe (overrides, flags), and in the recipe itself where it names
        the model to start from."""
        return self._asked

    @model_validator(mode="after")
    def _check_model(self) -> Self:
        kinds = kinds_that_answer(TASKS[self.task.kind].asks)
        starting = self.training.start_from is not None  # then the kind is that model's
        checked = self.model.checked([self.model.kind] if self.model.kind else kinds if starting else kinds[:1])
        if self.model.model_extra:
            self.model.model_extra.update(checked)
        return self

    def value(self, key: str) -> Any:
        """The value of `section.key`; None where it is open."""
        section, _, name = key.partition(".")
        return self.model.get(name) if section == "model" else getattr(getattr(self, section), name)

    def is_open(self, key: str) -> bool:
        """Whether `section.key` is still unset."""
        section, _, name = key.partition(".")
        return self.value(key) is None or (section != "model" and name not in getattr(self, section).model_fields_set)

    def with_values(self, values: Mapping[str, Any]) -> Self:
        """The same recipe with other values, by `section.key`; they are not checked again."""
        sections: dict[str, Any] = {}
        for key, value in values.items():
            section, _, name = key.partition(".")
            before = sections.get(section, getattr(self, section))
            sections[section] = before.model_copy(update={name: value})
        return self.model_copy(update=sections)


SECTIONS = tuple(name for name in Recipe.model_fields if name != "name")


def section_type(name: str) -> type[Section]:
    """The class of a section."""
    section = Recipe.model_fields[name].annotation
    assert isinstance(section, type) and issubclass(section, Section)
    return section


def homes_of(key: str) -> list[str]:
    """The sections in which a key may be set; in [model] for any kind of model."""
    homes = [section for section in SECTIONS if key in section_type(section).model_fields]
    if key not in DECIDED and any(key in config_fields(kind) for kind in MODELS):
        homes.insert(0, "model")
    return homes
