"""Beam search: the most likely answer to a source sentence, found by keeping a few beginnings of answers at a time.

    <start> ─┬─ Le ──┬─ chat ─┬─ dort ─── <end>      every open hypothesis is continued by every token;
             │       │        └─ est              ✗  the `beam` best beginnings stay open,
             │       └─ chien                     ✗  the others are cut off;
             └─ Un ──── chat ─── dort ─── <end>      one with <end> has ended, and waits to be ranked

Long answers are less likely than short ones, so those that have ended are ranked by log P(Y | X) / lp(Y) with
lp(Y) = ((5 + |Y|) / 6) ** alpha (Wu et al. 2016, https://arxiv.org/abs/1609.08144, eq. 14; alpha 0.6 and beam 4 in
Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, section 6.1). |Y| counts <end>.

B sentences, W open hypotheses of each, R = B W rows of the cache, V vocabulary, N candidates, T tokens so far. The
tests hold it equal to a readable twin, `tests/generation/beam_twin.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from glassformer.errors import DivergenceError, UsageError
from glassformer.generation.eval_mode import evaluating
from glassformer.generation.filters import AnswerRules, token_logits

LONGER_THAN_SOURCE = 50
"""How many tokens longer than its source an answer may be by default: as in the 2017 paper."""
DROP = 1 / 8
"""Finished sentences leave the batch when they are this share of it: each time costs a copy."""


class SequenceToSequence(Protocol):
    """An encoder-decoder: `EncoderDecoder`, or a recurrent one of `history`."""

    config: Any  # block_size, start_token, end_token
    training: bool

    def encode(self, source: Tensor, lengths_B: Tensor | None = None) -> Any:
        """Read the source: a memory, which is a named tuple of tensors with one row a sentence (or None)."""

    def decode(self, target_BT: Tensor, memory: Any, *, cache: Any = None) -> Tensor:
        """Logits (B, T, V); with a cache, of the tokens after those it holds."""

    def new_cache(self, batch_size: int = 1, capacity: int | None = None) -> Any:
        """An empty cache with `reorder`."""

    def train(self, mode: bool = True) -> Any:
        """As of `nn.Module`."""


@dataclass(frozen=True)
class Hypothesis:
    """One answer."""

    tokens: tuple[int, ...]  # the end token last
    log_probability: float  # of all of them, in nats
    score: float  # what it is ranked by: the log-probability over the length penalty
    ended: bool = True  # False: it was cut at its limit


def length_penalty_of(length: int, alpha: float, kind: str = "gnmt") -> float:
    """What the log-probability of an answer of `length` tokens is divided by: ((5 + length) / 6) ** alpha (`gnmt`, eq.
    14), or length ** alpha (`power`, as transformers has it).

    >>> length_penalty_of(1, 0.6), round(length_penalty_of(19, 0.5), 3), length_penalty_of(19, 0.0)
    (1.0, 2.0, 1.0)
    >>> length_penalty_of(9, 0.5, "power")
    3.0
    """
    return float((length if kind == "power" else (5 + length) / 6) ** alpha)


def beam_search(
    model: SequenceToSequence,
    source: Tensor,
    lengths_B: Tensor | None = None,
    *,
    beam: int = 4,
    length_penalty: float = 0.6,
    n_best: int = 1,
    max_new_tokens: int | None = None,
    patience: float = 1.0,
    n_tokens: int | None = None,
    missing: Sequence[int] = (),
    penalty_kind: str = "gnmt",
) -> list[list[Hypothesis]]:
    """The `n_best` answers to each source, best first.

    Args:
        source: ids (B, S), or what else the model encodes. lengths: (B,), how much of each row is no padding.
        beam: how many hypotheses stay open; 1 is greedy decoding, the most likely token at each step.
        length_penalty: alpha; 0: none.
        max_new_tokens: of each answer, its end token included; None: 50 more than the source has. An answer of that
            length must end there, at the price of the end token. Never more than block_size.
        patience: the search of a sentence is over when patience x beam hypotheses have ended (Kasai et al. 2022,
            https://arxiv.org/abs/2204.05424; 1 as in fairseq, and in transformers with early_stopping=True). It always
            stops when no open hypothesis can be among the n best any more, which changes no result; with `math.inf`
            nothing else stops it.
        n_tokens: how many of the model's logits stand for tokens; some models have a few more. missing: those among
            them that do not (see `token_logits`).
        penalty_kind: `gnmt` or `power`, see `length_penalty_of`; a power may be negative.

    The rules of the model's folder (`filters.AnswerRules`) apply here too.

    Raises:
        UsageError: a setting is out of range.
        DivergenceError: the model's logits are no numbers.

    The result of a sentence does not depend on the others of its batch.
    """
    for name, value, ok, rule in (
        ("beam", beam, beam >= 1, "1 (greedy) or more"),
        (
            "length_penalty",
            length_penalty,
            abs(length_penalty) < math.inf and (length_penalty >= 0 or penalty_kind == "power"),
            "0 (none) or more; 0.6 is usual",
        ),
        ("n_best", n_best, 1 <= n_best <= beam, f"1 to beam={beam}: no more are kept"),
        ("max_new_tokens", max_new_tokens, max_new_tokens is None or max_new_tokens >= 1, "1 or more"),
        ("patience", patience, patience >= 1, "1 or more"),
    ):
        if not ok:
            raise UsageError(f"{name}={value} is out of range; use {rule}")
    if not source.shape[0]:
        return []
    with evaluating(model):
        limits_B = answer_limits(model, source, lengths_B, max_new_tokens)
        penalty = partial(length_penalty_of, alpha=length_penalty, kind=penalty_kind)
        search = _Search(model, source, lengths_B, limits_B, beam, penalty, n_best, patience, n_tokens, missing)
        while search.sentences:
            search.step()
    if not all(search.ended):
        raise DivergenceError("the model's logits are no numbers (NaN); take an earlier checkpoint")
    return [sorted(ended, key=lambda h: -h.score)[:n_best] for ended in search.ended]


def answer_limits(model: SequenceToSequence, source: Tensor, lengths_B: Tensor | None, most: int | None) -> Tensor:
    """How many tokens the answer to each sentence may have, its end included: (B,) int64."""
    B = source.shape[0]
    if most is not None:
        limits_B = torch.full((B,), most)
    elif lengths_B is not None:
        limits_B = lengths_B.cpu() + LONGER_THAN_SOURCE
    else:
        limits_B = torch.full((B,), source.shape[-1] + LONGER_THAN_SOURCE)
    return limits_B.clamp(max=model.config.block_size)


def memory_rows(memory: Any, rows: Tensor) -> Any:
    """Some rows of a memory, of whichever model; `rows` may repeat or drop them."""
    return type(memory)(*(None if part is None else part[rows] for part in memory))


class _Candidates(NamedTuple):
    """The best continuations of each sentence, best first, (B, N) each; -inf: there is none."""

    logp_BN: Tensor
    parent_BN: Tensor  # the place of the hypothesis that is continued
    token_BN: Tensor


@dataclass
class _Search:
    """A batch under way; each of its B rows is one of `sentences`, and those that are done are dropped now and then."""

    model: SequenceToSequence
    source: Tensor
    lengths_B: Tensor | None
    limits_B: Tensor
    beam: int
    penalty: Callable[[int], float]
    n_best: int
    patience: float
    n_tokens: int | None
    missing: Sequence[int]

    def __post_init__(self) -> None:
        B, device = self.source.shape[0], self.source.device
        self.rules = AnswerRules(self.model, self.n_tokens)
        self.ends = torch.tensor(self.rules.ends, device=device)
        self.sentences = list(range(B))
        self.memory = self.model.encode(self.source, self.lengths_B)
        self.cache = self.model.new_cache(B, int(self.limits_B.max()))
        self.limits_B = self.limits_B.to(device)
        # log-probability of each open hypothesis, best first, -inf: the place is empty; W is 1 before the first step
        self.logp_BW = torch.zeros(B, 1, dtype=torch.float64, device=device)
        self.tokens_BWT = torch.zeros(B, 1, 0, dtype=torch.int64, device=device)
        self.last_R1 = torch.full((B, 1), self.rules.start, device=device)
        self.ended: list[list[Hypothesis]] = [[] for _ in range(B)]

    def step(self) -> None:
        """One more token for all."""
        found = self._candidates()
        ends_BN = torch.isin(found.token_BN, self.ends)
        self._end(found, ends_BN)
        # each hypothesis can end in so many ways, so of (1 + ways) x beam candidates at least `beam` continue
        logp_BW, chosen_BW = found.logp_BN.masked_fill(ends_BN, -math.inf).topk(min(self.beam, ends_BN.shape[1]))
        parent_BW, token_BW = found.parent_BN.gather(1, chosen_BW), found.token_BN.gather(1, chosen_BW)
        T = self.tokens_BWT.shape[2]
        kept_BWT = self.tokens_BWT.gather(1, parent_BW[..., None].expand(-1, -1, T))
        self.tokens_BWT = torch.cat((kept_BWT, token_BW[..., None]), dim=2)  # (B, W, T + 1)
        done = [self._is_done(b, best) for b, best in enumerate(logp_BW[:, 0].tolist())]
        self.logp_BW = logp_BW.masked_fill(torch.tensor(done, device=logp_BW.device)[:, None], -math.inf)
        self._rearrange(parent_BW, done)

    def _candidates(self) -> _Candidates:
        """The model's next tokens; of each row only the (1 + ways to end) x beam best tokens can matter."""
        B, W = self.logp_BW.shape
        logits_RV = self.model.decode(self.last_R1, self.memory, cache=self.cache)[:, -1]
        logits_RV = token_logits(logits_RV, self.n_tokens, self.missing)
        whole_R1 = logits_RV.logsumexp(dim=-1, keepdim=True)
        full_B = self.limits_B == self.tokens_BWT.shape[2] + 1
        best = (1 + len(self.ends)) * self.beam
        full_R = full_B.repeat_interleave(W)
        scores_RV = self.rules.apply(logits_RV, self.tokens_BWT.flatten(0, 1), full_R, on_logits=self.beam == 1)
        logits_RN, token_RN = scores_RV.topk(min(best, logits_RV.shape[1]), dim=-1)
        logp_RN = logits_RN - whole_R1
        if full_B.any():  # these must end now, in the most likely way
            ends_RE = (scores_RV if self.rules.must_end else logits_RV)[full_R][:, self.ends] - whole_R1[full_R]
            logp_RN[full_R] = -math.inf
            logp_RN[full_R, 0], which_R = ends_RE.max(dim=-1)
            token_RN[full_R, 0] = self.ends[which_R]
        N = logp_RN.shape[1]
        logp_BM = (self.logp_BW[..., None] + logp_RN.view(B, W, N)).flatten(1)  # M = W N
        logp_BN, place_BN = logp_BM.topk(min(best, W * N), dim=-1)
        return _Candidates(logp_BN, place_BN // N, token_RN.view(B, W * N).gather(1, place_BN))

    def _end(self, found: _Candidates, ends_BN: Tensor) -> None:
        """Keep those that end, if they are among the `beam` best."""
        places = (ends_BN & found.logp_BN.isfinite())[:, : self.beam].nonzero().tolist()
        for b, n in places:
            logp = float(found.logp_BN[b, n])
            tokens = (*self.tokens_BWT[b, found.parent_BN[b, n]].tolist(), int(found.token_BN[b, n]))
            self.ended[self.sentences[b]].append(Hypothesis(tokens, logp, logp / self.penalty(len(tokens))))

    def _is_done(self, b: int, best_open: float) -> bool:
        """Nothing is open, enough have ended, or the best open one cannot come among the n best of them.

        A hypothesis only becomes less likely, and its length will be between the next one and the limit: its
        log-probability now over the largest penalty there is more than it can ever score.
        """
        ended = self.ended[self.sentences[b]]
        if not math.isfinite(best_open) or len(ended) >= self.patience * self.beam:
            return True
        if len(ended) < self.n_best:
            return False
        bound = best_open / max(self.penalty(int(self.limits_B[b])), self.penalty(self.tokens_BWT.shape[2] + 1))
        return sorted((h.score for h in ended), reverse=True)[self.n_best - 1] >= bound

    def _rearrange(self, parent_BW: Tensor, done: list[bool]) -> None:
        """Let each row hold what its hypothesis has read, and drop sentences that are done when they are many."""
        old_width, device = self.last_R1.shape[0] // len(done), parent_BW.device
        dropping = sum(done) >= max(1, DROP * len(done))
        kept = [b for b, is_done in enumerate(done) if not (dropping and is_done)]
        if dropping:
            self.sentences = [self.sentences[b] for b in kept]
            kept_B = torch.tensor(kept, dtype=torch.int64, device=device)
            self.limits_B, self.logp_BW = self.limits_B[kept_B], self.logp_BW[kept_B]
            self.tokens_BWT, parent_BW = self.tokens_BWT[kept_B], parent_BW[kept_B]
        if not kept:
            return
        self.last_R1 = self.tokens_BWT[:, :, -1].reshape(-1, 1)
        first_B1 = old_width * torch.tensor(kept, device=device)[:, None]
        rows_R = (first_B1 + parent_BW).flatten()
        self.cache.reorder(rows_R)
        if dropping or parent_BW.shape[1] != old_width:  # otherwise each row stays with its sentence
            self.memory = memory_rows(self.memory, rows_R)
