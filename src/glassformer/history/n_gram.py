"""n-grams: count what followed the last few tokens; where that was seen seldom, ask one token less.

    p_k(w | h) = max(c_k(h w) - D_k, 0) / c_k(h)  +  D_k n_k(h) / c_k(h) * p_k-1(w | h')         p_0 = 1 / V

    h      the k - 1 tokens before w; h' the same without the oldest; n_k(h) how many different tokens followed h
    c_k    k = n: how often it was seen. k < n: how many different tokens were seen before it (the beginning of the text
           is one), because it is asked only where the longer run is rare, and there a token that follows everything
           ("e") is likelier than one that follows one thing often
    D_k    = n1 / (n1 + 2 n2), from how many runs of length k have count 1 and 2: what is taken from each and given back

Interpolated Kneser-Ney (Kneser and Ney 1995; Chen and Goodman 1998, "An empirical study of smoothing techniques for
language modeling", sect. 2.7 and eq. 23). These are probabilities: they sum to one. Nothing is learned by gradient.

Only runs that occur are kept, as a tree in sorted arrays:

    level 1      a            b            a run of k tokens has a number: its place in `keys` of level k
               /   \\           |            keys[i] = (number of its first k - 1 tokens) * V + last token
    level 2   aa    ab        ba           what follows a run is contiguous, so one search finds all of it
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glassformer.errors import DataError
from glassformer.history.base import LanguageModel, with_past
from glassformer.history.cache import TokenCache
from glassformer.history.config import NGramConfig
from glassformer.models.counts import FlopsPerToken


class Level(nn.Module):
    """All runs of k tokens: keys (P,) int64, ascending, and sums (P + 1,) int64, the counts added up from the left, so
    that one run's count and that of any stretch of them are differences."""

    keys: Tensor
    sums: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("keys", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("sums", torch.zeros(1, dtype=torch.int64))

    def fill(self, keys: Tensor, counts: Tensor) -> None:
        """Keep these runs, (P,) each."""
        self.keys = keys
        self.sums = torch.cat((counts.new_zeros(1), counts.cumsum(0)))

    def find(self, keys: Tensor) -> Tensor:
        """The numbers of runs, -1 for those never seen; any shape."""
        if not len(self.keys):
            return torch.full_like(keys, -1)
        place = torch.searchsorted(self.keys, keys).clamp_(max=len(self.keys) - 1)
        return torch.where(self.keys[place] == keys, place, -1)

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *rest: Any) -> None:
        for name in ("keys", "sums"):  # as many as were counted then
            if prefix + name in state:
                setattr(self, name, torch.empty_like(state[prefix + name], device=self.keys.device))
        super()._load_from_state_dict(state, prefix, *rest)


class NGram(LanguageModel):
    """ids (B, T) -> log-probabilities (B, T, V), in the place of logits (a softmax leaves them as they are).

    Before `fit` every token is equally likely. The tables are buffers, and so part of the state_dict.
    """

    is_trained = False  # it is counted

    def __init__(self, config: NGramConfig):
        super().__init__(config)
        self.levels = nn.ModuleList(Level() for _ in range(config.n_gram))
        self.discounts = nn.Parameter(torch.zeros(config.n_gram), requires_grad=False)  # D_1 ... D_n

    @torch.no_grad()
    def fit(self, ids: Tensor) -> NGram:
        """Count a text, (N,) ids or anything that becomes such a tensor; what was counted before is forgotten.

        Time grows as n N log N, memory as the number of different runs, at most n N.

        Raises:
            DataError: the text is empty.
        """
        ids = torch.as_tensor(ids, device=self.discounts.device).to(torch.int64).flatten()
        if not len(ids):
            raise DataError("there is nothing to count in an empty text; give one token or more")
        shorter: Tensor | None = None  # the number of the run of k - 1 tokens that ends at each place
        levels: list[Any] = list(self.levels)
        for k, level in enumerate(levels, start=1):
            before = torch.zeros_like(ids) if shorter is None else shorter[:-1]
            keys, runs, counts = torch.unique(
                before * self.config.vocab_size + ids[k - 1 :], return_inverse=True, return_counts=True
            )
            level.fill(keys, counts)
            if shorter is not None:  # count the tokens before each shorter run, now that they are known
                ending = torch.empty_like(keys).scatter_(0, runs, shorter[1:])  # the shorter run that each ends with
                below = levels[k - 2]
                different = torch.bincount(ending, minlength=len(below.keys))
                different[shorter[:1]] += 1  # and the beginning of the text, before the first of them
                below.fill(below.keys, different)
            shorter = runs
        self.discounts.copy_(torch.tensor([_discount(level.sums.diff()) for level in levels]))
        return self

    @torch.no_grad()
    def hidden(self, ids_BT: Tensor, *, cache: TokenCache | None = None) -> Tensor:
        """ids (B, T) -> log-probabilities (B, T, V)."""
        T, V = ids_BT.shape[1], self.config.vocab_size
        ids_BS = with_past(ids_BT, cache, reach=max(0, self.config.n_gram - 2))
        levels: list[Any] = list(self.levels)
        p_BSV = torch.full((*ids_BS.shape, V), 1 / V, dtype=self.discounts.dtype, device=ids_BS.device)
        ending_BS = torch.zeros_like(ids_BS)  # the number of the run of k - 1 tokens that ends at each place
        for k, level in enumerate(levels, start=1):
            p_BSV = _mix(level, self.discounts[k - 1], ending_BS.flatten(), p_BSV.flatten(0, 1)).view(p_BSV.shape)
            # a run of k tokens that ends here extends the one of k - 1 that ended one token ago; that of none, 0,
            # ended everywhere, and longer ones do not reach over the beginning
            before_BS = F.pad(ending_BS[:, :-1], (1, 0), value=0 if k == 1 else -1)
            ending_BS = torch.where(before_BS >= 0, level.find(before_BS * V + ids_BS), -1)
        return p_BSV[:, -T:].log()

    def init_weights(self, kind: str = "own") -> None:
        """As before `fit`."""
        for level in self.levels:
            level.fill(level.keys[:0], level.keys[:0])  # type: ignore[operator, index, arg-type]
        self.discounts.detach().zero_()

    def parameter_count(self) -> int:
        """How many counts are kept."""
        return sum(len(level.keys) for level in self.levels)  # type: ignore[arg-type, misc]

    def flops_per_token(self) -> FlopsPerToken:
        """Forward: each level scales and adds V probabilities. Training: one is added to one count a level; sorting
        takes the time, and is no arithmetic."""
        n = self.config.n_gram
        return FlopsPerToken(2 * n * self.config.vocab_size, n)


def _mix(level: Level, discount: Tensor, runs_N: Tensor, p_NV: Tensor) -> Tensor:
    """One level of the formula: runs of k - 1 tokens (-1: never seen) and p_k-1 (N, V) -> p_k (N, V)."""
    N, V = p_NV.shape
    first, last = torch.searchsorted(
        level.keys, torch.stack((runs_N, runs_N + 1)) * V
    )  # what followed: keys[first:last]
    followers_N, total_N = last - first, level.sums[last] - level.sums[first]
    row = torch.arange(N, device=first.device).repeat_interleave(followers_N)  # (E,) one for each follower
    place = torch.arange(len(row), device=row.device) - (followers_N.cumsum(0) - followers_N - first)[row]
    seen_N1 = (total_N > 0).unsqueeze(1)
    total_N1 = total_N.clamp(min=1).unsqueeze(1)
    mixed_NV = torch.where(seen_N1, discount * followers_N.unsqueeze(1) / total_N1, 1.0) * p_NV
    share_E = (level.sums[place + 1] - level.sums[place] - discount) / total_N[row]  # D <= 1 <= count
    mixed_NV[row, level.keys[place] % V] += share_E
    return mixed_NV


def _discount(counts: Tensor) -> float:
    """D of one level; half a count where a text is too short or too regular to estimate it."""
    once, twice = int((counts == 1).sum()), int((counts == 2).sum())
    return once / (once + 2 * twice) if once and twice else 0.5
