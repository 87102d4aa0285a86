"""Roll-outs: the model being trained answers prompts, and its answers become training batches.

    prompts ──engine──► answers ──reward──► one number each ──task──► batches of some updates ──► prompts ...

An iteration depends on the weights, the seed and its number alone. Its batches are part of a checkpoint, since the
weights that made them have changed by the second update; so a run resumes to the bit anywhere.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import torch
import torch.distributed as dist
from pydantic import Field
from torch import Tensor

from glassformer.data.batches import philox
from glassformer.data.chats import ChatRow
from glassformer.data.example_splits import spread
from glassformer.errors import DataError, UsageError, did_you_mean
from glassformer.evaluation.estimate import Metric, Metrics, share_interval
from glassformer.figures.primitives import Figure, Note
from glassformer.generation.eval_mode import evaluating
from glassformer.hub import load_model, model_folder_of
from glassformer.layers.lora import lora_state, without_lora
from glassformer.tasks.base import Batch, Opening, Score
from glassformer.tasks.chats import ChatSettings, ChatTask, prompt_ids
from glassformer.tasks.examples import SAMPLES, shortened
from glassformer.tasks.losses import padded, token_log_probs
from glassformer.tasks.reward_functions import RewardFunction, reward_function, rewards_of_rollouts
from glassformer.tasks.rollout_causes import causes
from glassformer.tasks.rollouts import RollOut, RollOutBatches, prompts_of, roll_out
from glassformer.tasks.sampler import CAP, distance, log_ratios, sampler_of
from glassformer.tasks.settings import Choice, TaskSettings

_ITERATION = 73  # a stream of random numbers
OF_WEIGHTS = ("sampler_kl", "truncated_weights")
READ_ROWS = 64
"""Answers that are read together."""


class RollOutSettings(ChatSettings):
    """[task] of every task that rolls out."""

    reward: str = Field(min_length=1)
    """what scores an answer: exact, contains or last_number (all compare with the row's field `answer`), or
    module:function, as reward(prompts, completions, **columns), or the run of a reward model"""
    max_new_tokens: int = Field(default=64, ge=1)
    """of an answer; one that is cut there has not ended"""
    missing_end: float = 0.0
    """subtracted from the score of an answer that has not ended"""
    temperature: float = Field(default=1.0, gt=0)
    """of the sampling; log-probabilities are those at this temperature"""
    rollout_dtype: Literal["fp32", "bf16", "int8", "int4"] = "fp32"
    """number format of the weights that answer, as `generate --dtype`. fp32: those that are trained. Others: a copy of
    the present weights, made for each iteration, and importance weights (`tasks/sampler.py`)"""
    importance_cap: float | None = Field(default=None, ge=1)
    """most that an importance weight may be; None: 2, and no weights where rollout_dtype is fp32"""


class RollOutTask(ChatTask):
    """A task that learns from its own answers to prompts; see `ChatTask`. A subclass gives `iteration` and `loss`, and
    adds to `FACTS` and `causes`."""

    Settings: ClassVar[type[TaskSettings]] = RollOutSettings
    FACTS: ClassVar[tuple[str, ...]] = ("reward", "length", "ended", "sampler_gap", *OF_WEIGHTS)
    """metrics that are known of an answer before the update; the last two where there are importance weights"""
    stays_near_start: ClassVar[bool] = True
    score: ClassVar[Score] = Score("val_reward", "higher")
    form: ClassVar[str] = "a prompt, alone or with one answer; other fields go to the reward function"
    n_row_answers: ClassVar[int | None] = None
    paths: ClassVar[tuple[str, ...]] = ("template", "reward")
    on_policy: ClassVar[bool] = True
    alarm: ClassVar[float | None] = math.inf  # a loss whose mean is near zero at every step shows no divergence
    state: Mapping[str, Any] = MappingProxyType({})
    """what changes from one iteration to the next beside the weights, as plain numbers: `begin` sets it"""
    model: Any = None
    """the model that is trained: `begin` sets it"""
    reference: Any = None
    """the model that the run starts from, loaded when it is needed"""
    share: int = 0
    """sequences of an update in this process"""
    place: tuple[int, int] = (0, 1)
    """(rank, number of processes)"""

    @classmethod
    def read(cls, opening: Opening, choices: list[Choice]) -> Any:
        source = super().read(opening, choices)
        source.examples = {split: [*map(_prompt_row, rows)] for split, rows in source.examples.items()}
        return source

    @cached_property
    def reward(self) -> RewardFunction:
        """The reward function."""
        device = "cpu" if self.model is None else str(next(self.model.parameters()).device)
        return reward_function(self.settings.reward, device)

    @property
    def ends(self) -> frozenset[int]:
        """The tokens that end an answer; none: every answer has max_new_tokens."""
        return frozenset(self.tokenizer.chat.turn_ends if self.source.is_chat else self.tokenizer.ends)

    @property
    def uses(self) -> int:
        """Updates with the same answer."""
        return 1

    def begin(self, model: Any) -> None:
        names = ("dropout", "weight_dropout", "token_dropout")
        if any(getattr(module, name, 0.0) for module in model.modules() for name in names):
            raise UsageError(
                "an update compares log-probabilities from before and after it, and dropout changes them by chance; "
                "leave out training.dropout, attention_dropout, token_dropout and lora_dropout"
            )
        self.model = model
        sampler_of(model, self.settings.rollout_dtype)  # what cannot be made is found before the first step

    @property
    def importance_cap(self) -> float | None:
        """Most that an importance weight may be; None: there are none."""
        s = self.settings
        return s.importance_cap or (None if s.rollout_dtype == "fp32" else CAP)

    def reference_model(self) -> Any:
        """The model that the run starts from, frozen; with LoRA it shares the weights of the one that is trained."""
        if self.reference is None and lora_state(self.model):
            self.reference = without_lora(self.model)
        if self.reference is None:
            if self.run.start_from is None:
                raise UsageError("the KL is measured to the model that the run starts from; set training.start_from")
            found = load_model(model_folder_of(self.run.start_from)).eval().requires_grad_(False)
            self.reference = found.to(next(self.model.parameters()).device)
        return self.reference

    def check(self, config: Any) -> None:
        _ = self.reward  # what cannot be imported is found before the first step
        if config is not None and self.run.start_from is None:
            raise UsageError(
                "roll-outs improve answers that a model gives already; set training.start_from=MODEL, such as a run of "
                "task.kind=sft"
            )
        if self.settings.missing_end and not self.ends:
            raise UsageError(
                f"task.missing_end={self.settings.missing_end} lowers the score of answers that do not end, and this "
                "tokenizer has no token that ends one; leave it out"
            )
        super().check(config)

    def encode(self, split: str, T: int) -> list[Any]:
        """(row, ids) of every prompt that leaves a token for an answer."""
        pairs = [(row, prompt_ids(self.tokenizer, row)) for row in self.source.examples[split]]
        fitting = [(row, ids) for row, ids in pairs if len(ids) < T]
        self.source.notice(len(pairs) - len(fitting), "prompt", split, f"left out: {T} tokens or longer")
        if not fitting:
            raise DataError(f"every prompt has {T} tokens or more; use a larger training.sequence_length")
        return fitting

    def batches(self, split: str, rank: int = 0, world_size: int = 1) -> RollOutBatches:  # type: ignore[override]
        self.share, self.place = self.run.batch_size // world_size, (rank, world_size)
        return RollOutBatches(self)

    def iteration(self, number: int) -> list[Batch]:
        """The training batches of an iteration, in order."""
        raise NotImplementedError

    def roll_out(self, number: int, prompts: int, samples: int) -> tuple[list[RollOut], Tensor]:
        """Answers to this process's prompts of an iteration, and their rewards (B,). All processes together have the
        answers that one would have."""
        rank, world_size = self.place
        rows = self.encoded("train", self.run.sequence_length)
        chosen = prompts_of(rows, prompts * world_size, self.run.seed, number)[rank::world_size]
        seed = int(philox(self.run.seed, _ITERATION, number).integers(2**62))
        numbers = range(rank, prompts * world_size, world_size)
        sampler = sampler_of(self.model, self.settings.rollout_dtype)
        return self.answered(sampler, chosen, samples, seed, numbers=numbers)

    def answered(
        self,
        model: Any,
        prompts: Sequence[Any],
        samples: int,
        seed: int,
        *,
        numbers: Sequence[int] | None = None,
        greedy: bool = False,
    ) -> tuple[list[RollOut], Tensor]:
        """Answers to prompts, and their rewards."""
        s = self.settings
        rollouts = roll_out(
            model,
            self.tokenizer,
            prompts,
            samples=samples,
            max_new_tokens=s.max_new_tokens,
            temperature=0.0 if greedy else s.temperature,
            seed=seed,
            numbers=numbers,
        )
        return rollouts, rewards_of_rollouts(self.reward, rollouts, s.reward)

    @torch.no_grad()
    def log_probs(self, model: Any, inputs_BT: Tensor, targets_BT: Tensor) -> Tensor:
        """log p of the answers' tokens in eval mode and in the precision of the training, (B, T), on the CPU."""
        device = next(model.parameters()).device
        half = torch.autocast(device.type, torch.bfloat16, enabled=self.run.precision == "bf16")
        rows = zip(inputs_BT.split(READ_ROWS), targets_BT.split(READ_ROWS), strict=True)
        with evaluating(model), half:
            found = [token_log_probs(model, x.to(device), y.to(device), self.settings.temperature) for x, y in rows]
        return torch.cat(found).cpu()

    def lowered(self, rollouts: Sequence[RollOut], rewards_B: Tensor) -> Tensor:
        """Rewards, those of answers that have not ended lowered by `missing_end`, (B,)."""
        return rewards_B - self.settings.missing_end * torch.tensor([float(not r.ended) for r in rollouts])

    def total(self, x: Tensor) -> Tensor:
        """The sum of a tensor over all processes."""
        if self.place[1] > 1:
            x = x.clone()
            dist.all_reduce(x)
        return x

    def moments(self, x_N: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of numbers, those of all processes together; fp64. Of a single one: 0."""
        x_N = x_N.double()
        n, total = self.total(torch.stack([torch.tensor(float(len(x_N)), dtype=x_N.dtype), x_N.sum()]))
        mean = total / n
        return mean, (self.total(((x_N - mean) ** 2).sum()) / (n - 1).clamp(min=1)).sqrt()

    def importance_weights(self, rollouts: Sequence[RollOut], log_probs_BT: Tensor, counts_BT: Tensor) -> Tensor:
        """Of each token, (B, T): `tasks/sampler.py`. 1 where there are none."""
        if self.importance_cap is None:
            return torch.ones_like(log_probs_BT)
        return log_ratios(rollouts, log_probs_BT, counts_BT).exp().clamp(max=self.importance_cap)

    def answer_facts(
        self, rollouts: Sequence[RollOut], rewards_B: Tensor, log_probs_BT: Tensor, counts_BT: Tensor
    ) -> Tensor:
        """What is known of each answer, (B, F): see `FACTS`. What is known of the sampler is that of all answers."""
        ended_B = torch.tensor([float(r.ended) for r in rollouts])
        away_N = log_ratios(rollouts, log_probs_BT, counts_BT)[counts_BT]
        sampler_BF = torch.tensor(distance(away_N, self.importance_cap)).expand(len(rollouts), -1)
        own_BF = torch.stack([rewards_B, counts_BT.sum(1).float(), ended_B], dim=1)
        return torch.cat([own_BF, sampler_BF], dim=1)

    def fact_metrics(self, facts_BF: Tensor) -> dict[str, tuple[Tensor, int | Tensor]]:
        """Their means over answers, as metrics."""
        found = {name: (total, len(facts_BF)) for name, total in zip(self.FACTS, facts_BF.sum(0), strict=False)}
        unused = OF_WEIGHTS if self.importance_cap is None else ()
        return {name: metric for name, metric in found.items() if name not in unused}

    def causes(self, history: Sequence[Mapping[str, float]]) -> Mapping[str, str]:
        return causes(self, history)

    def evaluate(self, model: Any, split: str = "validation", *, whole: bool = True) -> Metrics:
        """The mean reward of one sampled answer to each prompt, the same prompts and random numbers at every call; of
        held-out prompts also that of the most likely answer."""
        if not self.source.examples.get(split):
            raise UsageError(f"{self.source.name} has no {split} split; {did_you_mean(split, self.source.examples)}")
        prompts = self.encoded(split, model.config.block_size)
        most = self.run.eval_batches * self.run.batch_size
        if not whole and (most or split == "train"):
            prompts = spread(prompts, most or len(self.source.examples["validation"]))
        rollouts, rewards_B = self.answered(model, prompts, 1, self.run.seed)
        n, ended = len(rollouts), sum(r.ended for r in rollouts) / len(rollouts)
        found = {
            "reward": _mean(rewards_B),
            "length": _mean(torch.tensor([float(len(r.ids)) for r in rollouts])),
            "ended": Metric(ended, n, share_interval(ended, n)),
        }
        if split != "train":
            found["reward_greedy"] = _mean(self.answered(model, prompts, 1, self.run.seed, greedy=True)[1])
        return Metrics(found)

    def example_batch(self, model: Any) -> Batch:
        ids = [ids for _, ids in self.encoded("validation", model.config.block_size)[:8]]
        return padded(ids, 0)[:1]

    def sample(self, model: Any, step: int) -> list[Figure]:
        """Answers to the first held-out prompts, with their rewards."""
        prompts = spread(self.encoded("validation", model.config.block_size), SAMPLES)
        rollouts, rewards_B = self.answered(model, prompts, 1, self.run.seed)
        lines = [
            f"{shortened(self.tokenizer.decode(r.prompt))} => {shortened(r.text)}   (reward {reward:.3g})"
            for r, reward in zip(rollouts, rewards_B.tolist(), strict=True)
        ]
        return [Note("\n\n".join(lines))]


def _mean(x_N: Tensor) -> Metric:
    spread_of_one = float(x_N.std()) if len(x_N) > 1 else math.inf
    return Metric(float(x_N.mean()), len(x_N), 1.96 * spread_of_one / math.sqrt(len(x_N)))


def _prompt_row(row: ChatRow) -> ChatRow:
    """A prompt alone: the answer of a row becomes its field `answer`, unless it has one.

    Raises:
        DataError: there are two answers.
    """
    if not row.answers:
        return row
    if len(row.answers) > 1:
        raise DataError(f"{row.place}: a row has chosen and rejected, and this task needs {RollOutTask.form}")
    prompt, answer = row.prompt, row.answers[0]
    if not isinstance(answer, str):
        assert not isinstance(prompt, str)
        prompt, answer = [*prompt, *answer[:-1]], str(answer[-1].get("content") or "")
    return replace(row, prompt=prompt, answers=(), columns={"answer": answer, **row.columns})
