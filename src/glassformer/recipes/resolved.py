"""A recipe in which everything is decided, once (`resolve.py`), and kept in recipe.toml. It is frozen."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from glassformer.errors import UsageError
from glassformer.recipes.machine import Machine
from glassformer.recipes.schema import Recipe, TrainingSection
from glassformer.tasks import Choice, RunSettings

RATES = {"muon": 3e-3, "sgd": 0.1}  # learning rates where the recipe has none; of others 1e-3


class ResolvedTraining(TrainingSection):
    """[training] with every number decided."""

    steps: int
    sequence_length: int
    batch_size: int
    micro_batch_size: int
    eval_every: int
    sample_every: int
    checkpoint_every: int
    learning_rate: float
    warmup_steps: int

    @classmethod
    def complete(cls, t: TrainingSection, block_size: int, *, batch_size: int | None = None) -> ResolvedTraining:
        """The numbers that are open follow from the others.

        Args:
            block_size: tokens that the model reads. batch_size: in place of the recipe's.

        Raises:
            UsageError: sequences longer than the model reads.
        """
        if t.sequence_length is not None and t.sequence_length > block_size:
            raise UsageError(
                f"training.sequence_length={t.sequence_length} is more than the model reads "
                f"(model.block_size={block_size}); use {block_size} or less"
            )
        batch_size = batch_size or (t.batch_size if isinstance(t.batch_size, int) else 32)
        steps = t.steps or 1000
        eval_every = max(1, steps // 10) if t.eval_every is None else t.eval_every
        rules = {
            "steps": steps,
            "sequence_length": block_size,
            "batch_size": batch_size,
            "micro_batch_size": batch_size,
            "eval_every": eval_every,
            "sample_every": eval_every,
            "checkpoint_every": eval_every,
            "learning_rate": RATES.get(t.optimizer, 1e-3),
            "warmup_steps": min(100, steps // 20),
        }
        given = {name: value for name, value in t if value is not None}
        return cls(**{**rules, **given, "batch_size": batch_size})

    def shared(self, world_size: int) -> ResolvedTraining:
        """For `world_size` processes, each with an equal part of a step's sequences.

        Raises:
            UsageError: they cannot be divided, or there is one process for weights that are to be spread.
        """
        ours, rest = divmod(self.batch_size, world_size)
        if rest:
            raise UsageError(
                f"training.batch_size={self.batch_size} cannot be divided among {world_size} processes; "
                f"try training.batch_size={(ours + 1) * world_size}"
            )
        if self.sharding != "none" and world_size == 1:
            raise UsageError(
                "training.sharding=full spreads weights over processes, and there is one; "
                "start it with: torchrun --nproc-per-node N -m glassformer train ..."
            )
        return self.model_copy(update={"micro_batch_size": min(self.micro_batch_size, ours)})

    @property
    def run_settings(self) -> RunSettings:
        """The numbers that decide what batches, evaluations and samples hold; not what the machine decides."""
        ours = RunSettings.model_fields.keys() - {"precision", "device"}
        return RunSettings(**{name: getattr(self, name) for name in ours})

    def run_settings_on(self, machine: Machine) -> RunSettings:
        """The same on a machine."""
        return self.run_settings.model_copy(update={"precision": machine.precision, "device": machine.device})

    @property
    def eval_interval(self) -> int:
        """Steps between two evaluations."""
        return self.eval_every or self.steps


class ResolvedRecipe(Recipe):
    """Everything that decides a run.

    Attributes:
        config: of the model. choices: what was decided and why; of a run that was read again, none.
    """

    training: ResolvedTraining
    config: Any = Field(exclude=True)
    machine: Machine = Field(exclude=True)
    choices: tuple[Choice, ...] = Field(default=(), exclude=True)

    @classmethod
    def of(
        cls, r: Recipe, training: ResolvedTraining, *, config: Any, machine: Machine, choices: tuple[Choice, ...] = ()
    ) -> ResolvedRecipe:
        """A recipe with what was decided."""
        rest: dict[str, Any] = {name: getattr(r, name) for name in Recipe.model_fields if name != "training"}
        return cls(**rest, training=training, config=config, machine=machine, choices=choices)


def as_trained(config: Any, t: ResolvedTraining) -> Any:
    """The configuration whose block_size is the length of a training sequence: what time and memory follow from."""
    return config.model_copy(update={"block_size": t.sequence_length})
