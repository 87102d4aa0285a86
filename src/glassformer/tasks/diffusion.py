"""Diffusion: a text is hidden token by token, and the model, which reads what is left on both sides, predicts the rest.

text       To be, or not to be              k of T tokens are hidden, k uniform in 1 ... T: t = k / T is the noise level
shown      T▒ b▒▒ o▒ ▒ot ▒o b▒              t = 0.4
loss       1/t x the sum of -log p(token) over the hidden ones

Masked (absorbing) diffusion: Sahoo et al. 2024, https://arxiv.org/abs/2406.07524 (MDLM), equation 10; Nie et al. 2025,
https://arxiv.org/abs/2502.09992 (LLaDA), equation 3. With each token hidden by itself with probability t, the loss,
averaged over t uniform in (0, 1), is a bound from above on -log p(text). Here exactly k tokens are hidden (LLaDA,
equation 6). The average is the same, because P(k hidden | t) / t integrates over t to 1 / k, which is P(k) = 1 / T
times the weight T / k; and it varies less. The noise levels of a step's windows are spread evenly (MDLM's low-variance
sampler).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from glassformer.data import TokenBatches
from glassformer.data.batches import philox
from glassformer.errors import DataError, UsageError
from glassformer.evaluation.estimate import Metrics, WindowLosses
from glassformer.evaluation.rows import RowLosses, evaluate_rows
from glassformer.figures.primitives import Figure, Note
from glassformer.generation.diffusion import diffuse
from glassformer.generation.settings import Sampling
from glassformer.processors.tokenizers.special_tokens import MASK
from glassformer.tasks.base import Batch, Batches, Loss
from glassformer.tasks.held_out import spread_windows
from glassformer.tasks.losses import IGNORED, check_not_empty, place_losses
from glassformer.tasks.settings import TaskSettings
from glassformer.tasks.text import TextTask

TRAINING, EVALUATION, BY_LEVEL = 94, 95, 96  # streams of random numbers
LEVELS = tuple(n / 10 for n in range(1, 11))
"""Shares of hidden tokens at which `glassformer evaluate` reports the loss."""
LEVEL_WINDOWS = 256  # read at each of them


class DiffusionSettings(TaskSettings):
    """[task] of kind diffusion."""

    noise_levels: int = Field(default=8, ge=1, le=1000)
    """at which an evaluation reads each window, evenly spread; more make the bound surer and cost as much more"""


class Diffusion(TextTask):
    """The bound on -log p(text), in nats, of windows of a text.

    A batch is (shown, ids): ids (B, T); shown (B, T), the same with hidden tokens as `mask_token`, or (B, K, T) for K
    noise levels, of which the mean counts. The count of a window is T, so that its loss is one a token. The mask has no
    probability: no text holds it.

    Args:
        mask_token: what hides a token.

    Raises:
        UsageError: a setting is out of range.
    """

    Settings: ClassVar[type[TaskSettings]] = DiffusionSettings
    asks: ClassVar[str] = "masked_token"
    head: ClassVar[Mapping[str, Any]] = {"token_head": "vocabulary"}
    specials: ClassVar[tuple[str, ...]] = (MASK,)
    data_keys: ClassVar[tuple[str, ...]] = (*TextTask.data_keys, "order")
    command: ClassVar[str] = "diffuse"

    def __init__(self, *, mask_token: int, **settings: Any):
        super().__init__(**settings)
        self.mask_token = mask_token

    @classmethod
    def arguments(cls, source: Any) -> dict[str, Any]:
        if MASK not in source.tokenizer.special_tokens:
            raise UsageError(f"the tokenizer has no {MASK} token; give another one, or leave out tokenizer.path")
        return {"mask_token": source.tokenizer.special_tokens[MASK]}

    @property
    def n_answers(self) -> int:
        return self.tokenizer.vocab_size - 1

    def collate(self, examples: Sequence[Sequence[int]], random: np.random.Generator) -> Batch:
        """Windows of equal length as ids -> a batch, its noise drawn from `random`.

        Raises:
            DataError: there is no window, or one has no token, or they differ in length.
        """
        check_not_empty(examples, "text")
        if len({len(ids) for ids in examples}) > 1:
            raise DataError("the windows of a batch differ in length; give windows of equal length")
        ids_BT = torch.from_numpy(np.array(examples, dtype=np.int64))
        return hidden(ids_BT, even_levels(len(ids_BT), random), random, self.mask_token), ids_BT

    def batches(self, split: str, rank: int = 0, world_size: int = 1) -> Batches:
        return NoisyBatches(
            self.view(split),
            self.mask_token,
            block_size=self.run.sequence_length,
            batch_size=self.run.batch_size // world_size,
            seed=self.run.seed,
            order=self.source.data.order,
            rank=rank,
            world_size=world_size,
        )

    def loss(self, model: Any, batch: Batch) -> Loss:
        """The bound, summed over windows."""
        sums_B, _ = self.bounds(model, batch)
        return Loss(sums_B.sum(), batch[-1].numel())

    def rows(self, model: Any, batch: Batch) -> RowLosses:
        """The bound of each window, and of its hidden tokens, as a share of all T, how many were found."""
        sums_B, hits_B = self.bounds(model, batch)
        counts_B = torch.full_like(hits_B, batch[-1].shape[1], dtype=torch.int64)
        return RowLosses(sums_B.double(), counts_B, hits_B.round().long())

    def bounds(self, model: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """(the bound in nats, hits) of each window, (B,) each: 1/t times the sum over its hidden tokens."""
        shown, ids_BT = batch
        levels = (shown,) if shown.dim() == 2 else shown.unbind(1)
        found = [self._weighted(model, shown_BT, ids_BT) for shown_BT in levels]
        sums_B, hits_B = (torch.stack(parts).mean(dim=0) for parts in zip(*found, strict=True))
        return sums_B, hits_B

    def _weighted(self, model: Any, shown_BT: Tensor, ids_BT: Tensor) -> tuple[Tensor, Tensor]:
        losses_BT, hits_BT = self.token_losses(model, shown_BT, ids_BT)
        B, T = ids_BT.shape
        weights_B = T / (shown_BT == self.mask_token).sum(dim=1).clamp(min=1)
        return losses_BT.sum(dim=1) * weights_B, hits_BT.sum(dim=1) * weights_B

    def token_losses(self, model: Any, shown_BT: Tensor, ids_BT: Tensor) -> tuple[Tensor, Tensor]:
        """(-log p in nats, hits) of each token, (B, T) each: 0 and False where it is shown."""
        targets = ids_BT.masked_fill(shown_BT != self.mask_token, IGNORED).flatten()  # (B T,)
        vectors_NC = model(shown_BT).flatten(0, 1)
        if gather := targets.device.type == "cpu" and not torch.compiler.is_compiling():
            places_N = (targets != IGNORED).nonzero().squeeze(1)  # the head at hidden tokens alone
            vectors_NC, targets_N = vectors_NC[places_N], targets[places_N]
        else:
            targets_N = targets
        logits_NV = model.token_logits(vectors_NC)
        mask = torch.tensor(self.mask_token, device=targets.device)
        losses_N, hits_N = place_losses(logits_NV.index_fill(-1, mask, -torch.inf), targets_N)
        if gather:
            losses_N = losses_N.new_zeros(len(targets)).index_copy(0, places_N, losses_N)
            hits_N = hits_N.new_zeros(len(targets)).index_copy(0, places_N, hits_N)
        return losses_N.view_as(ids_BT), hits_N.view_as(ids_BT)

    def evaluate(self, model: Any, split: str = "validation", *, whole: bool = True) -> Metrics:
        windows, _ = evaluate_rows(model, self.rows, self._noisy(model, split, whole))
        view = self.view(split)
        return windows.metrics(view.bytes / len(view))

    def _noisy(self, model: Any, split: str, whole: bool) -> Iterator[Batch]:
        """The windows of an evaluation at `noise_levels` levels each; the same noise at each call."""
        random, K = philox(self.run.seed, EVALUATION, 0), self.settings.noise_levels
        for _, ids_BT in self.held_out_windows(model, split, whole=whole):
            t_BK = (np.arange(K) + random.random((len(ids_BT), 1))) / K
            shown = [hidden(ids_BT, t_BK[:, k], random, self.mask_token) for k in range(K)]
            yield torch.stack(shown, dim=1), ids_BT

    def example_batch(self, model: Any) -> Batch:
        _, ids_BT = next(self.held_out_windows(model, "validation", whole=True))
        return self.collate(ids_BT[:8].numpy(), np.random.default_rng(0))  # type: ignore[arg-type]

    def extra_scores(self, model: Any, split: str = "validation") -> LevelLosses:
        """The loss of hidden tokens by how many are hidden."""
        device, random = next(model.parameters()).device, philox(self.run.seed, BY_LEVEL, 0)
        found: dict[float, list[tuple[Tensor, Tensor, Tensor]]] = {t: [] for t in LEVELS}
        T, was_training = model.config.block_size, model.training
        model.eval()
        with torch.inference_mode():
            for _, ids_BT in spread_windows(model, self.view(split), T, LEVEL_WINDOWS):
                for t, parts in found.items():
                    shown_BT = hidden(ids_BT, np.full(len(ids_BT), t - 1e-9), random, self.mask_token)
                    losses_BT, hits_BT = self.token_losses(model, shown_BT.to(device), ids_BT.to(device))
                    counts_B = (shown_BT == self.mask_token).sum(dim=1)
                    parts.append((losses_BT.sum(dim=1).double().cpu(), counts_B, hits_BT.sum(dim=1).cpu()))
        model.train(was_training)
        levels = [tuple(torch.cat(part) for part in zip(*parts, strict=True)) for parts in found.values()]
        return LevelLosses.of(levels)

    def sample(self, model: Any, step: int) -> list[Figure]:
        r = self.run
        sampling = Sampling(temperature=0.8, seed=r.seed + step)
        (*_, last) = diffuse(model, self.tokenizer, r.sample_prompt, max_new_tokens=r.sample_tokens, sampling=sampling)
        return [Note(last.text)]


class NoisyBatches(TokenBatches):
    """Training windows of a text with their noise: (shown, ids), each (B, T); see `TokenBatches`."""

    def __init__(self, view: Any, mask_token: int, **others: Any):
        super().__init__(view, **others)
        self.mask_token = mask_token

    def batch(self, step: int) -> Batch:
        _, ids_BT = super().batch(step)
        random, ours = philox(self.seed, TRAINING, step), slice(self.rank * len(ids_BT), (self.rank + 1) * len(ids_BT))
        t = even_levels(self.together, random)
        scores = random.random((self.together, ids_BT.shape[1]))  # of all ranks, of which each takes its own
        return hidden(ids_BT, t[ours], scores[ours], self.mask_token), ids_BT


def even_levels(n: int, random: np.random.Generator) -> np.ndarray:
    """n noise levels in [0, 1), each uniform, together evenly spread."""
    return (np.arange(n) + random.random()) / n


def hidden(ids_BT: Tensor, t_B: np.ndarray, random: np.random.Generator | np.ndarray, mask_token: int) -> Tensor:
    """Windows with floor(t T) + 1 of their T tokens hidden, t in [0, 1); random: scores (B, T), or what draws them."""
    B, T = ids_BT.shape
    scores_BT = random if isinstance(random, np.ndarray) else random.random((B, T))
    n_B1 = np.minimum(T, (t_B * T).astype(np.int64) + 1)[:, None]
    is_hidden_BT = scores_BT.argsort(axis=1).argsort(axis=1) < n_B1
    return ids_BT.masked_fill(torch.from_numpy(is_hidden_BT), mask_token)


@dataclass(frozen=True)
class LevelLosses:
    """The loss of a hidden token in nats, with half the width of its 95 % interval, and the share of hidden tokens that
    were found, by the share that is hidden; over n windows."""

    n: int
    hidden: list[float]
    loss: list[float]
    interval: list[float]
    accuracy: list[float]

    @classmethod
    def of(cls, levels: Sequence[tuple[Tensor, ...]]) -> LevelLosses:
        """From (sums, counts, hits) of the windows at each level, (N,) each."""
        means = [WindowLosses(sums, counts, "").metrics()["loss"] for sums, counts, _ in levels]
        accuracy = [float(hits.sum()) / int(counts.sum()) for _, counts, hits in levels]
        return cls(len(levels[0][0]), list(LEVELS), [m.value for m in means], [m.interval for m in means], accuracy)

    def to_dict(self) -> dict[str, Any]:
        return {"by_noise_level": asdict(self)}

    def lines(self) -> list[str]:
        """A table with a row for each level."""
        rows = zip(self.hidden, self.loss, self.interval, self.accuracy, strict=True)
        table = [f"{100 * t:>6.0f} % {loss:>8.3f} ± {i:.3f} {100 * right:>8.1f} %" for t, loss, i, right in rows]
        return [f"{'hidden':>8} {'loss of each':>16} {'found':>10}", *table, f"({self.n:,} windows)"]
