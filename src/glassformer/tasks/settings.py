"""What a task takes from a recipe: its own keys, [data], [tokenizer], and a few numbers of [training]."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from glassformer.data.batches import ORDERS
from glassformer.errors import UsageError, did_you_mean
from glassformer.models.mistakes import Checked

TRAIN_SHARE = 0.02  # of the time of training, what evaluations of the training split may cost
STEP_COST = 3  # forward passes: a backward pass costs two


class Section(BaseModel):
    """One table of a recipe. Unknown keys are mistakes."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)


class TaskSettings(Checked):
    """The keys of a recipe's [task] that belong to one kind; without fields there are none."""

    _section: ClassVar[str] = "task."


def _known_order(value: str) -> str:
    if value not in ORDERS:
        raise UsageError(f"data.order={value!r} is unknown; {did_you_mean(value, ORDERS)}")
    return value


class DataSettings(Section):
    """[data]"""

    source: str = Field(default="tinyshakespeare", min_length=1)
    """a corpus or a set of examples by name, a file, a folder, `-` for standard input, or a hub dataset `owner/name`"""
    validation_fraction: float = Field(default=0.1, gt=0, lt=1)
    text_field: str = "text"
    max_tokens: int | None = Field(default=None, ge=1)
    max_examples: int | None = Field(default=None, ge=1)
    """of the training split, where the source is a set of examples"""
    order: Annotated[str, AfterValidator(_known_order)] = "epochs"
    """in which the windows of a text come (`TokenBatches`): epochs, random or consecutive"""
    document_mask: bool = False
    """attention stays inside each document of a window (next_token); else the end-of-text token alone separates them"""


class TokenizerSettings(Section):
    """[tokenizer]"""

    kind: str | None = None
    vocab_size: int | None = Field(default=None, ge=1)
    path: str | None = None
    """one that exists: a folder with tokenizer.json, a run, a .model file"""
    specials: list[str] | None = None
    """special tokens of a tokenizer that is learned from a text, such as those of a chat template; None: its kind's"""
    source_kind: str | None = None
    """of the sources' own tokenizer, where sources and targets are written in different symbols"""


class RunSettings(BaseModel):
    """The numbers of [training] that decide what batches, evaluations and samples hold."""

    model_config = ConfigDict(frozen=True)

    seed: int = 1337
    steps: int = 1000
    batch_size: int = 32
    """sequences of a step, of all processes together"""
    sequence_length: int = 256
    """tokens of a training sequence"""
    eval_batches: int = 0
    """of the validation split, at evaluations on the way; 0: the whole split"""
    eval_interval: int = 1
    """steps between two evaluations"""
    sample_tokens: int = 200
    sample_prompt: str = ""
    start_from: str | None = None
    """the model that the run begins with, which a task may compare with"""
    precision: str = "fp32"
    """of the training: fp32 or bf16"""
    device: str = "cpu"
    """of the training"""

    @property
    def train_eval_rows(self) -> int:
        """How many sequences of the training split an evaluation reads at most: those that cost `TRAIN_SHARE` of the
        steps between two evaluations; one batch at least."""
        return self.batch_size * max(1, int(TRAIN_SHARE * STEP_COST * self.eval_interval))


@dataclass(frozen=True)
class Choice:
    """One derived value and why."""

    key: str
    value: Any
    why: str

    def __str__(self) -> str:
        return f"{self.key} = {self.value}  ({self.why})"
