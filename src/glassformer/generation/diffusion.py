"""Writing by diffusion: begin with hidden tokens and write a few of them in each step, anywhere; perhaps revise some.

step 1    ▒▒▒▒▒e▒▒▒▒▒▒▒▒▒▒▒▒▒        Sahoo et al. 2024, https://arxiv.org/abs/2406.07524, algorithm 2 (random order)
step 2    ▒▒▒▒be▒▒▒▒▒▒to▒▒▒         Nie et al. 2025, https://arxiv.org/abs/2502.09992, section 2.4 (by confidence)
...                                 Wang et al. 2025, https://arxiv.org/abs/2503.00307 (written tokens are hidden again)
step 9    To be, or not to be

All tokens of a step are sampled at once, each by itself, so a step that writes one token is exact and a step that
writes many is a shortcut. What stands between two gaps is read on both sides. A text longer than the model reads is
written block by block from left to right.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from glassformer.errors import UsageError, plural
from glassformer.generation.encoders import check_encoder
from glassformer.generation.eval_mode import evaluating
from glassformer.generation.fill_mask import mask_of
from glassformer.generation.filters import filtered_probabilities, token_logits
from glassformer.generation.requests import check_ids
from glassformer.generation.sampling import not_finite, sample_at
from glassformer.generation.settings import NEW_TOKENS, Sampling
from glassformer.processors.tokenizers import Tokenizer

Order = Literal["random", "confidence"]
GAPS = re.compile(r"<mask(?::([0-9]+))?>")
"""`<mask>`: one hidden token; `<mask:40>`: forty."""
HIDDEN = "▒"
MAX_TOKENS = 100_000
"""Of a text with its gaps."""


@dataclass(frozen=True)
class Draft:
    """A text after a step.

    ids: of its tokens. hidden, written, erased: the places of tokens that are still hidden, that this step wrote, and
    that it hid again. probability: of each written token, the model's own (temperature 1).
    """

    step: int
    steps: int
    ids: tuple[int, ...]
    hidden: frozenset[int]
    written: tuple[int, ...]
    probability: tuple[float, ...]
    erased: tuple[int, ...]
    tokenizer: Tokenizer

    def parts(self) -> list[tuple[str, str]]:
        """The text in parts of one kind: (kind, text), the kind being hidden, written (now) or there (before)."""
        now = set(self.written)
        kinds = ["hidden" if i in self.hidden else "written" if i in now else "there" for i in range(len(self.ids))]
        found = []
        for kind, places in groupby(range(len(self.ids)), key=kinds.__getitem__):
            ids = [self.ids[i] for i in places]
            found.append((kind, HIDDEN * len(ids) if kind == "hidden" else self.tokenizer.decode(ids)))
        return found

    def to_dict(self) -> dict[str, Any]:
        """For JSON: what the step did, and the text."""
        written = [
            {
                "place": place,
                "token": self.ids[place],
                "text": self.tokenizer.token_text(self.ids[place]),
                "probability": p,
            }
            for place, p in zip(self.written, self.probability, strict=True)
        ]
        return {"step": self.step, "written": written, "erased": list(self.erased), "text": self.text}

    @property
    def text(self) -> str:
        """The text, a hidden token as ▒."""
        if not self.hidden:
            return self.tokenizer.decode(list(self.ids))
        return "".join(text for _, text in self.parts())


def diffuse(
    model: Any,
    tokenizer: Tokenizer,
    text: str,
    *,
    max_new_tokens: int | None = None,
    steps: int | None = None,
    order: Order = "random",
    remask: float = 0.0,
    block: int | None = None,
    sampling: Sampling | None = None,
) -> Iterator[Draft]:
    """Write the gaps of a text (`GAPS`), or continue one without gaps; a draft after each step, the last one whole.

    Args:
        text: "" writes from nothing. max_new_tokens: of a text without gaps; default 200.
        steps: of all gaps together; None: one for each hidden token.
        order: which tokens a step keeps: at `random` places, or those of which the model is most sure.
        remask: of the tokens that earlier steps wrote, this share is hidden again after each step but the last: those
            of which the model was least sure.
        block: tokens that are written together before the next ones; None: as many as the model reads, of a longer text
            half of that.

    Raises:
        UsageError: the model writes no hidden tokens, or a setting is out of range. DivergenceError: its logits are no
            numbers.
    """
    check_encoder(model, "write by diffusion")
    if (mask := mask_of(model, tokenizer)) is None:
        raise UsageError("this encoder writes no hidden tokens; train one with task.kind=diffusion")
    ids = gapped_ids(tokenizer, text, mask, max_new_tokens)
    check_ids(ids, tokenizer, model.config.vocab_size)
    gaps = [place for place, token in enumerate(ids) if token == mask]
    steps = len(gaps) if steps is None else steps
    reads: int = model.config.block_size
    block = (reads if len(ids) <= reads else max(1, reads // 2)) if block is None else block
    for name, value, ok, rule in (
        ("steps", steps, 1 <= steps <= MAX_TOKENS, f"1 to {MAX_TOKENS:,}"),
        ("remask", remask, 0 <= remask < 1, "a share from 0 (off) to below 1"),
        ("block", block, 1 <= block <= reads, f"1 to {reads}, which the model reads"),
        ("order", order, order in get_args(Order), " or ".join(get_args(Order))),
    ):
        if not ok:
            raise UsageError(f"{name}={value} is out of range; use {rule}")
    return _Writer(model, tokenizer, ids, gaps, mask, sampling or Sampling()).run(steps, order, remask, block)


def gapped_ids(tokenizer: Tokenizer, text: str, mask: int, max_new_tokens: int | None = None) -> list[int]:
    """The ids of a text with its gaps, or of one without gaps followed by `max_new_tokens` hidden tokens.

    Raises:
        UsageError: a gap of no token, too many tokens, or a number of new tokens beside gaps.
    """
    pieces = GAPS.split(text)  # text, number, text, number, ..., text
    lengths = [1 if n is None else int(n[:9]) for n in pieces[1::2]]
    if lengths and max_new_tokens is not None:
        raise UsageError(f"the text says how long its {plural(len(lengths), 'gap')} are; leave max_new_tokens out")
    if not lengths:
        lengths = [NEW_TOKENS if max_new_tokens is None else max_new_tokens]
        pieces += [None, ""]
    if bad := [n for n in lengths if not 1 <= n <= MAX_TOKENS]:
        raise UsageError(f"a gap of {plural(bad[0], 'token')}; use 1 to {MAX_TOKENS:,}")
    ids: list[int] = []
    for part, n in zip(pieces[::2], [*lengths, 0], strict=True):
        ids += (tokenizer.encode(part) if part else []) + [mask] * n
    if len(ids) > MAX_TOKENS:
        raise UsageError(f"{len(ids):,} tokens with all gaps; at most {MAX_TOKENS:,} are written: shorten the gaps")
    return ids


class _Writer:
    """A text that is being written: ids, and of each token that was written its probability."""

    def __init__(
        self, model: Any, tokenizer: Tokenizer, ids: list[int], gaps: list[int], mask: int, sampling: Sampling
    ):
        self.model, self.tokenizer, self.ids, self.mask, self.sampling = model, tokenizer, ids, mask, sampling
        self.hidden, self.probability = set(gaps), dict[int, float]()
        self.random = torch.Generator().manual_seed(sampling.seed)
        self.device = next(model.parameters()).device

    def run(self, steps: int, order: str, remask: float, block: int) -> Iterator[Draft]:
        blocks = list(self._blocks(block))
        total, number = len(self.hidden), 0
        counts = [max(1, round(steps * len(places) / total)) for places in blocks]
        if steps >= len(blocks):  # rounding must not change how many there are
            counts[counts.index(max(counts))] += steps - sum(counts)
        for places, n in zip(blocks, counts, strict=True):
            for step in range(n):
                number += 1
                left = [place for place in places if place in self.hidden]
                written = self._write(left, -(-len(left) // (n - step)), order, places)
                erased = self._erase(places, written, remask) if step < n - 1 else []
                yield Draft(
                    number,
                    sum(counts),
                    tuple(self.ids),
                    frozenset(self.hidden),
                    tuple(written),
                    tuple(self.probability[place] for place in written),
                    tuple(erased),
                    self.tokenizer,
                )

    def _blocks(self, block: int) -> Iterator[list[int]]:
        """The hidden places in parts that span at most `block` tokens, from left to right."""
        part: list[int] = []
        for place in sorted(self.hidden):
            if part and place - part[0] >= block:
                yield part
                part = []
            part.append(place)
        yield part

    def _write(self, left: list[int], n: int, order: str, places: list[int]) -> list[int]:
        """Sample n of the hidden places `left` and keep them; which they are, in order."""
        if not left:
            return []
        if order == "random":
            left = sorted(left[i] for i in torch.randperm(len(left), generator=self.random)[:n].tolist())
        logits_NV = self._logits(left, places)
        p_NV = filtered_probabilities(logits_NV, self.sampling)
        u_N1 = torch.rand(len(left), 1, generator=self.random, dtype=torch.float64)
        tokens_N = sample_at(p_NV, u_N1)
        own_N = logits_NV.softmax(dim=-1).gather(1, tokens_N[:, None]).squeeze(1)
        chosen = range(len(left)) if order == "random" else sorted(own_N.topk(n).indices.tolist())
        for i in chosen:
            self.ids[left[i]], self.probability[left[i]] = int(tokens_N[i]), float(own_N[i])
        written = [left[i] for i in chosen]
        self.hidden.difference_update(written)
        return written

    def _erase(self, places: list[int], written: list[int], share: float) -> list[int]:
        """Hide the given share of what earlier steps wrote at these places, the least sure tokens first."""
        before = [place for place in places if place not in self.hidden and place not in written]
        erased = sorted(sorted(before, key=self.probability.__getitem__)[: round(share * len(before))])
        for place in erased:
            self.ids[place] = self.mask
        self.hidden.update(erased)
        return erased

    def _logits(self, left: list[int], places: list[int]) -> Tensor:
        """What the model expects at hidden places: (N, V), on the CPU, -inf at the mask."""
        first, last = self._window(places[0], places[-1] + 1)
        with evaluating(self.model):
            vectors_TC = self.model(torch.tensor([self.ids[first:last]], device=self.device))[0]
            at = torch.tensor([place - first for place in left], device=self.device)
            logits_NV = self.model.token_logits(vectors_TC[at])
        missing = (*self.tokenizer.missing_ids, self.mask)
        logits_NV = token_logits(logits_NV, self.tokenizer.vocab_size, missing).cpu()
        if not logits_NV.isfinite().any(dim=1).all() or logits_NV.isnan().any():
            raise not_finite()
        return logits_NV

    def _window(self, first: int, last: int) -> tuple[int, int]:
        """What the model reads for the places first ... last - 1: all, or as much before them as fits and, where text
        follows soon, up to half of the rest behind them."""
        reads: int = self.model.config.block_size
        if len(self.ids) <= reads:
            return 0, len(self.ids)
        room = (reads - (last - first)) // 2
        follows = any(place not in self.hidden for place in range(last, min(last + room, len(self.ids))))
        end = min(len(self.ids), last + room) if follows else last
        start = max(0, end - reads)
        return start, min(len(self.ids), start + reads)
