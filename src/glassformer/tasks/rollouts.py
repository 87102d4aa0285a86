"""Roll-outs: the model being trained answers prompts, and its answers become training batches.

    prompts ──engine──► answers ──reward──► one number each ──task──► batches of some updates ──► prompts ...

An iteration depends on the weights, the seed and its number alone. Its batches are part of a checkpoint, since the
weights that made them have changed by the second update; so a run resumes to the bit anywhere.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from glassformer.data.batches import IGNORED, philox
from glassformer.data.chats import ChatRow
from glassformer.data.example_splits import spread
from glassformer.errors import DataError, UsageError, did_you_mean
from glassformer.evaluation.estimate import Metric, Metrics
from glassformer.figures.primitives import Figure, Note
from glassformer.generation import Engine, Request, Sampling
from glassformer.generation.eval_mode import evaluating
from glassformer.hub import load_model, model_folder_of
from glassformer.processors.tokenizers import Tokenizer
from glassformer.tasks.base import Batch, Score
from glassformer.tasks.chats import ChatSettings, ChatTask, prompt_ids
from glassformer.tasks.examples import SAMPLES, shortened
from glassformer.tasks.losses import padded, token_log_probs
from glassformer.tasks.settings import TaskSettings

if TYPE_CHECKING:
    from typing_extensions import Self

_PROMPT, _EPOCH, _ITERATION = 71, 72, 73  # streams of random numbers
ENGINE_ROWS = 64
"""Samples that are generated together."""

RewardFunction = Callable[..., Sequence[float]]
"""reward(prompts, completions, **columns) -> one number for each completion, as in TRL."""


@dataclass(frozen=True)
class RollOut:
    """One answer of the model.

    prompt, ids: tokens of the prompt and of the answer, its end included. text: of the answer, without the end.
    ended: whether it ended by itself, and not at max_new_tokens.
    """

    row: ChatRow
    prompt: list[int]
    ids: list[int]
    text: str
    ended: bool


def roll_out(
    model: Any,
    tokenizer: Tokenizer,
    prompts: Sequence[tuple[ChatRow, list[int]]],
    *,
    samples: int,
    max_new_tokens: int,
    temperature: float = 1.0,
    seed: int = 0,
) -> list[RollOut]:
    """`samples` answers to every prompt, those of one prompt side by side; the same for the same seed and weights.

    Raises:
        UsageError: a prompt leaves no token for an answer.
    """
    engine = Engine(model, tokenizer, max_rows=ENGINE_ROWS)
    ends = None if tokenizer.chat_template is None else frozenset(tokenizer.chat.turn_ends)
    numbers: dict[int, int] = {}
    for place, (row, ids) in enumerate(prompts):
        free = model.config.block_size - len(ids)
        if free < 1:
            raise UsageError(f"{row.place}: the prompt has {len(ids)} tokens and the model reads {free + len(ids)}")
        request = Request(
            ids=tuple(ids),
            max_new_tokens=min(max_new_tokens, free),
            samples=samples,
            sampling=Sampling(temperature=temperature, seed=_seed(seed, place)),
            end_tokens=ends if row.is_chat else None,
        )
        numbers[engine.submit(request)] = place
    pieces: dict[tuple[int, int], list[Any]] = {}
    for event in engine.run():
        if event.piece is not None:
            pieces.setdefault((numbers[event.request], event.piece.sample), []).append(event.piece)
    found = []
    for place, (row, ids) in enumerate(prompts):
        for sample in range(samples):
            parts = pieces[place, sample]
            text = "".join(part.text for part in parts)
            ended = parts[-1].finish_reason != "length"
            found.append(RollOut(row, list(ids), [part.token for part in parts], text, ended))
    return found


def _seed(seed: int, place: int) -> int:
    """A seed for the samples of one prompt; sample i has the generator of `seed + i`."""
    return int(philox(seed, _PROMPT, place).integers(2**62))


def sequences(rollouts: Sequence[RollOut]) -> tuple[Tensor, Tensor]:
    """(inputs_BT, targets_BT) of prompts with their answers: the targets are the tokens of the answers."""
    inputs_BT, _ = padded([[*r.prompt, *r.ids[:-1]] for r in rollouts], 0)
    targets_BT, _ = padded([[IGNORED] * (len(r.prompt) - 1) + r.ids for r in rollouts], IGNORED)
    return inputs_BT, targets_BT


def reward_function(name: str) -> RewardFunction:
    """The function that `module:function` names.

    Raises:
        UsageError: it cannot be imported.
    """
    module, colon, function = name.partition(":")
    if not colon:
        raise UsageError(f"task.reward={name!r}: name a function as module:function, or a reward model's folder")
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"task.reward={name}: {error}; is its folder on PYTHONPATH?") from None
    if not callable(found):
        raise UsageError(f"task.reward={name} is a {type(found).__name__}, not a function")
    return found  # type: ignore[no-any-return]


def rewards_of_rollouts(function: RewardFunction, rollouts: Sequence[RollOut], name: str = "reward") -> Tensor:
    """One reward for each roll-out, (B,) fp32.

    Raises:
        DataError: the function raises, or gives the wrong number of rewards, or something that is no finite number;
            the row is named.
    """
    columns: dict[str, list[Any]] = {}
    for key in {key for r in rollouts for key in r.row.columns}:
        columns[key] = [r.row.columns.get(key) for r in rollouts]
    try:
        values = function([r.row.prompt for r in rollouts], [_completion(r) for r in rollouts], **columns)
    except Exception as error:
        raise DataError(f"{name} raised {type(error).__name__}: {error}; mend the reward function") from error
    try:
        values = list(values)
    except TypeError:
        raise DataError(f"{name} gave a {type(values).__name__}; it must give a list of numbers") from None
    if len(values) != len(rollouts):
        raise DataError(f"{name} gave {len(values)} rewards for {len(rollouts)} completions; give one for each")
    for value, r in zip(values, rollouts, strict=True):
        number = value.item() if hasattr(value, "item") else value
        if isinstance(number, bool) or not isinstance(number, (int, float)) or not math.isfinite(number):
            raise DataError(f"{r.row.place}: {name} gave {number!r} for {r.text[:40]!r}; give a finite number")
    return torch.tensor([float(value) for value in values], dtype=torch.float32)


def _completion(r: RollOut) -> Any:
    return [{"role": "assistant", "content": r.text}] if r.row.is_chat else r.text


class RollOutBatches:
    """The stream of training batches of a task that rolls out.

    Args:
        task: its `iteration` gives the batches of an iteration, in order: tensors with one row a sequence; its `state`
            is kept with them.
    """

    def __init__(self, task: RollOutTask):
        self.task, self.iteration, self.left = task, 0, list[Batch]()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Batch:
        if not self.left:
            self.left = self.task.iteration(self.iteration)
            self.iteration += 1
        return self.left.pop(0)

    def state_dict(self) -> dict[str, Any]:
        """The number of the next iteration, and the batches that are left of this one, as plain numbers."""
        left = [[{"dtype": str(t.dtype).removeprefix("torch."), "rows": t.tolist()} for t in b] for b in self.left]
        return {"iteration": self.iteration, "left": left, "task": dict(self.task.state)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state_dict` was taken."""
        self.iteration = int(state["iteration"])
        self.task.state = dict(state["task"])
        self.left = [
            tuple(torch.tensor(part["rows"], dtype=getattr(torch, part["dtype"])) for part in batch)
            for batch in state["left"]
        ]


class RollOutSettings(ChatSettings):
    """[task] of every task that rolls out."""

    reward: str = Field(min_length=1)
    """what scores an answer: module:function, as reward(prompts, completions, **columns), or the folder of a reward
    model"""
    max_new_tokens: int = Field(default=64, ge=1)
    """of an answer"""
    temperature: float = Field(default=1.0, gt=0)
    """of the sampling; log-probabilities are those at this temperature"""


class RollOutTask(ChatTask):
    """A task that learns from its own answers to prompts; see `ChatTask`. A subclass gives `iteration` and `loss`."""

    Settings: ClassVar[type[TaskSettings]] = RollOutSettings
    score: ClassVar[Score] = Score("val_reward", "higher")
    form: ClassVar[str] = "a prompt alone; other fields go to the reward function"
    n_row_answers: ClassVar[int | None] = 0
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

    @cached_property
    def reward(self) -> RewardFunction:
        """The reward function."""
        return reward_function(self.settings.reward)

    def begin(self, model: Any) -> None:
        self.model = model

    def reference_model(self) -> Any:
        """The model that the run starts from, frozen."""
        if self.reference is None:
            if self.run.start_from is None:
                raise UsageError("the KL is measured to the model that the run starts from; set training.start_from")
            self.reference = load_model(model_folder_of(self.run.start_from)).eval().requires_grad_(False)
        return self.reference

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
        """Answers to this process's prompts of an iteration, and their rewards (B,)."""
        rank, world_size = self.place
        rows = self.encoded("train", self.run.sequence_length)
        chosen = prompts_of(rows, prompts * world_size, self.run.seed, number)[rank::world_size]
        seed = int(philox(self.run.seed, _ITERATION, number * world_size + rank).integers(2**62))
        return self.answered(self.model, chosen, samples, seed)

    def answered(self, model: Any, prompts: Sequence[Any], samples: int, seed: int) -> tuple[list[RollOut], Tensor]:
        """Answers to prompts, and their rewards."""
        s = self.settings
        rollouts = roll_out(
            model,
            self.tokenizer,
            prompts,
            samples=samples,
            max_new_tokens=s.max_new_tokens,
            temperature=s.temperature,
            seed=seed,
        )
        return rollouts, rewards_of_rollouts(self.reward, rollouts, s.reward)

    @torch.no_grad()
    def log_probs(self, model: Any, inputs_BT: Tensor, targets_BT: Tensor) -> Tensor:
        """log p of the answers' tokens in eval mode, (B, T), on the CPU."""
        device = next(model.parameters()).device
        with evaluating(model):
            found = token_log_probs(model, inputs_BT.to(device), targets_BT.to(device), self.settings.temperature)
        return found.cpu()

    def evaluate(self, model: Any, split: str = "validation", *, whole: bool = True) -> Metrics:
        """The mean reward of one sampled answer to each prompt, the same prompts and random numbers at every call."""
        if not self.source.examples.get(split):
            raise UsageError(f"{self.source.name} has no {split} split; {did_you_mean(split, self.source.examples)}")
        prompts = self.encoded(split, model.config.block_size)
        most = self.run.eval_batches * self.run.batch_size
        if not whole and (most or split == "train"):
            prompts = spread(prompts, most or len(self.source.examples["validation"]))
        rollouts, rewards_B = self.answered(model, prompts, 1, self.run.seed)
        n = len(rollouts)
        spread_of_one = float(rewards_B.std()) if n > 1 else math.inf
        lengths_B = torch.tensor([float(len(r.ids)) for r in rollouts])
        return Metrics(
            {
                "reward": Metric(float(rewards_B.mean()), n, 1.96 * spread_of_one / math.sqrt(n)),
                "length": Metric(float(lengths_B.mean()), n),
                "ended": Metric(sum(r.ended for r in rollouts) / n, n),
            }
        )

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


def prompts_of(rows: Sequence[Any], n: int, seed: int, iteration: int) -> list[Any]:
    """`n` rows of an iteration, without replacement while they last: the same for the same seed and number."""
    order: list[int] = []
    start = iteration * n
    while len(order) < n:
        epoch, place = divmod(start + len(order), len(rows))
        permutation = philox(seed, _EPOCH, epoch).permutation(len(rows))
        order += permutation[place : place + n - len(order)].tolist()
    return [rows[i] for i in order]
