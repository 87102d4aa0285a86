"""How large everything is. The recipes (`*.toml`) are of the full form; `changes` of another form stand over them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from glassformer.errors import UsageError, did_you_mean

METHODS = ("dpo", "ppo", "grpo", "best-of-n", "rejection")


@dataclass(frozen=True)
class Settings:
    """The numbers that the stages share. Each method generates `budget` answers for its training (best-of-n: none, it
    needs n for each answer that it gives)."""

    methods: tuple[str, ...] = METHODS
    reviews: int = 0
    """that the model and the classifier read; 0: all"""
    prompt_tokens: int = 8
    """of a prompt: the opening of a review"""
    answer_tokens: int = 32
    """that follow it, at most"""
    budget: int = 6_144
    ranked: int = 4
    """answers to a prompt that the gold classifier ranks"""
    measured: int = 256
    """held-out prompts on which a model is measured"""
    best_of: int = 32
    """the largest n of best-of-n"""
    changes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """`section.key=value` by stage"""

    def __post_init__(self) -> None:
        for name in self.methods:
            if name not in METHODS:
                raise UsageError(f"method {name!r} is unknown; {did_you_mean(name, METHODS)}")

    @property
    def sequence_length(self) -> int:
        """Predictions of a prompt with its answer that are trained, an eighth of an answer less than all: an answer as
        text often has fewer tokens than were sampled, and one that was cut off must not seem to end there."""
        return self.prompt_tokens + self.answer_tokens - self.answer_tokens // 8 - 1

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


FULL = Settings()
LOOSE = Settings(changes={"ppo": ("task.beta=0.05",), "grpo": ("task.beta=0.02",)})
"""A weak penalty on the distance from SFT, so that PPO and GRPO exploit the mistakes of the reward model."""
SHORT = Settings(
    methods=("dpo",),
    reviews=8_000,
    budget=2_048,
    measured=256,
    changes={
        "start": ("model.n_layer=2", "model.n_embd=128", "training.steps=500", "training.batch_size=32"),
        "sft": ("training.steps=40",),
        "dpo": ("training.steps=32", "training.checkpoint_every=16"),
    },
)
