"""The engine: many requests at once, which come and go at any step, on one model and one cache.

    waiting ──admit──► reading its prompt ──► writing, one token a step ──► done: idle, its past is kept
                            (prefill)           (decode, all rows together)

Every step reads a piece of at most one prompt and then writes one token in every row that is ready: one matrix product
for all of them (continuous batching: Yu et al. 2022, Orca). Who asks goes on from the longest beginning that any row
has already read: the last turns of a chat, the prompt of another sample. Memory is bounded: when it is full, requests
wait. Rows in the cache stand in this order:

    ready to write | reading | idle
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import torch
from torch import Tensor

from glassformer.errors import UsageError
from glassformer.generation.requests import Event, Request, Row
from glassformer.generation.sampling import choose, filtered_probabilities
from glassformer.generation.text import Alternative, Piece
from glassformer.models import Decoder
from glassformer.native import draw
from glassformer.tokenizers import Tokenizer

MAX_ROWS = 32
PREFILL_TOKENS = 512  # of prompts, read in one step: how long the others wait at the most
MAX_CACHE_BYTES = 2 << 30


class Engine:
    """Answers requests with a `Decoder`.

    Args:
        max_rows: how many samples are written at once.
        max_positions: how many tokens the cache holds, all rows together; by default what fits into 2 GiB, and never
            less than one whole context.

    `submit` a `Request`, then call `step` until `busy` says no; every step gives `Event`s. It belongs to one thread.
    """

    def __init__(
        self, model: Decoder, tokenizer: Tokenizer, *, max_rows: int = MAX_ROWS, max_positions: int | None = None
    ):
        if max_rows < 1:
            raise UsageError(f"max_rows={max_rows} is too small; use 1 or more")
        self.model, self.tokenizer = model, tokenizer
        config = model.config
        weight = model.embedding.token.weight
        a_position = 2 * config.n_layer * config.n_kv_head * config.head_width * weight.element_size()
        affordable = max(config.block_size, min(MAX_CACHE_BYTES // a_position, max_rows * config.block_size))
        self.cache = model.new_row_cache(max_rows, affordable if max_positions is None else max_positions)
        self.active: list[Row] = []  # row i of the cache belongs to active[i]; those behind are idle
        self.ready = 0  # how many of them write
        self.waiting: deque[Row] = deque()
        self._numbers = count()

    @property
    def busy(self) -> bool:
        """Whether anything is left to do."""
        return bool(self.active or self.waiting)

    def submit(self, request: Request) -> int:
        """Take a request; its events carry the number that is returned.

        Raises:
            UsageError: a token is not in the vocabulary, or it needs more memory than the cache may ever have.
        """
        request.check_tokens(self.model.config.vocab_size)
        number = next(self._numbers)
        rows = [Row(number, request, i, self.tokenizer, self.model.config.block_size) for i in range(request.samples)]
        if not self.cache.fits(1, rows[0].need):
            raise UsageError(
                f"the request takes {rows[0].need:,} tokens and the cache holds {self.cache.max_positions:,}; "
                "shorten the prompt or ask for fewer new tokens"
            )
        self.waiting.extend(rows)
        return number

    def cancel(self, number: int) -> None:
        """Forget a request, at once; one that is done or unknown is nothing to worry about."""
        self.waiting = deque(row for row in self.waiting if row.number != number)
        with torch.inference_mode():  # the cache was made in it
            for row in [row for row in self.active if row.number == number]:
                self._leave(self.active.index(row))

    def step(self) -> list[Event]:
        """Read a piece of a prompt, and write one token in every row that is ready."""
        with torch.inference_mode(), _reading(self.model):
            events = self._read_prompts()
            return events + self._write()

    # Reading

    def _read_prompts(self) -> list[Event]:
        """Admit and read until the tokens of a step are used up, or nobody is left to read."""
        budget, events = PREFILL_TOKENS, []
        while budget > 0:
            if self.ready == len(self.active) and not self._admit():
                break
            row, at = self.active[self.ready], self.ready
            known = self.cache.lengths[at]
            pending = row.seen[known:-1][:budget]  # the last one is read together with all other rows
            if pending:
                told = row.request.score_prompt and row.start == 0 and len(row.ids) == len(row.request.ids)
                hidden_1TC = self.model.hidden(self._tensor([pending]), cache=self.cache.rows(at, at + 1))
                if told:
                    events += [Event(row.number, prompt=self._score(row, known, hidden_1TC))] if not row.sample else []
                budget -= len(pending)
            if self.cache.lengths[at] == len(row.seen) - 1:
                self.ready += 1
                if not row.left:
                    self._leave(at)
        return events

    def _score(self, row: Row, known: int, hidden_1TC: Tensor) -> tuple[Piece, ...]:
        """What the model thought of the tokens that followed those it has just read."""
        logits_TV = self.model.logits(hidden_1TC)[0, :, : self.tokenizer.vocab_size].float().cpu()
        tokens = row.seen[known + 1 : known + 1 + len(logits_TV)]
        own_TV = logits_TV.softmax(dim=-1)
        best = most_likely(own_TV, row.request.alternatives, self.tokenizer)
        text = self.tokenizer.token_text
        return tuple(
            Piece(text(token), token, text(token), p := float(own_TV[t, token]), p, best[t])
            for t, token in enumerate(tokens)
        )

    def _admit(self) -> bool:
        """Give the next sample that waits a row; False if none waits or there is no room."""
        if not self.waiting:
            return False
        row, n = self.waiting[0], len(self.active)
        needed = max([row.need, *(other.need for other in self.active)])
        if not self.cache.fits(n + 1, needed):
            return False
        self.waiting.popleft()
        source, shared = (n, 0) if row.request.score_prompt else self._longest_beginning(row.seen[:-1])
        if shared and source >= n:  # the first of the idle ones is the last to be let go of
            self.cache.swap(n, source)
            source = n
        take_over = shared > 0 and source == n and 2 * shared >= self.cache.lengths[n]
        target = self._room(n, needed, take_over)
        if shared and target != source:
            self.cache.copy(source, target, shared)
        self.cache.rewind(target, shared)
        self.cache.swap(n, target)
        self.active.append(row)
        return True

    def _room(self, n: int, needed: int, take_over: bool) -> int:
        """A row for one more beside the n active ones, which all have room for `needed` tokens then: the first idle
        one, to be taken over; one that is empty; a new one; else the one that is idle longest, which is the last."""
        cache = self.cache
        capacity = max(needed, cache.capacity)
        if not cache.fits(n + 1, capacity):
            capacity = needed  # a long one has left, and what it needed is for others now
        empty = next((i for i in range(n, cache.n_rows) if not cache.lengths[i]), None)
        rows = cache.n_rows if take_over or empty is not None else max(2 * cache.n_rows, 1)
        new = cache.n_rows if rows > cache.n_rows else None
        while not cache.fits(rows, capacity):
            rows -= 1  # idle ones are let go of
        cache.resize(rows, capacity)
        if take_over:
            return n
        found = empty if empty is not None else new
        return found if found is not None and found < rows else rows - 1

    def _longest_beginning(self, ids: list[int]) -> tuple[int, int]:
        """The row that has read most of the beginning of these tokens, and how many of them."""
        best = (len(self.active), 0)
        wanted = self._tensor(ids)
        for i, length in enumerate(self.cache.lengths):
            n = min(length, len(ids))
            if n <= best[1] or (i < len(self.active) and self.active[i].start):
                continue
            differs = (self.cache.tokens[i, :n] != wanted[:n]).nonzero()
            shared = int(differs[0]) if len(differs) else n
            if shared > best[1]:
                best = (i, shared)
        return best

    # Writing

    def _write(self) -> list[Event]:
        """One more token in every row that is ready."""
        rows = self.active[: self.ready]
        if not rows:
            return []
        logits_B1V = self.model(self._tensor([[row.ids[-1]] for row in rows]), cache=self.cache.rows(0, self.ready))
        # some models have more logits than their tokenizer has tokens (a padded table): those cannot be said
        logits_BV = logits_B1V[:, 0, : self.tokenizer.vocab_size].float().cpu()
        wanted = max(row.request.alternatives for row in rows)
        best = most_likely(logits_BV.softmax(dim=-1), wanted, self.tokenizer) if wanted else [[] for _ in rows]
        events = []
        for row, (token, chance, own), others in zip(rows, self._draw(logits_BV, rows), best, strict=True):
            events.append(Event(row.number, row.take(token, own, chance, others[: row.request.alternatives])))
        for at in reversed(range(len(rows))):
            if events[at].piece.finish_reason is not None:  # type: ignore[union-attr]
                self._leave(at)
            elif rows[at].slide():
                self.cache.rewind(at, 0)
                self.ready -= 1
                self._trade(at, self.ready)
        return events

    def _draw(self, plain_BV: Tensor, rows: list[Row]) -> list[tuple[int, float, float]]:
        """A token for each row, how likely it was to be drawn, and how likely the model thinks it; rows that draw alike
        are filtered together."""
        logits_BV = plain_BV
        if any(row.request.logit_bias for row in rows):
            logits_BV = logits_BV.clone()
            for b, row in enumerate(rows):
                for token, bias in row.request.logit_bias.items():
                    if token < logits_BV.shape[1]:
                        logits_BV[b, token] += bias
        alike: dict[Any, list[int]] = {}
        for b, row in enumerate(rows):
            alike.setdefault(row.draws if row.draws.repetition_penalty == 1 else b, []).append(b)
        found: dict[int, tuple[int, float, float]] = {}
        for members in alike.values():
            of_all = len(members) == len(rows)
            plain_MV, logits_MV = (part if of_all else part[members] for part in (plain_BV, logits_BV))
            drawn = self._draw_alike(plain_MV, logits_MV, [rows[b] for b in members])
            found |= zip(members, zip(*drawn, strict=True), strict=True)
        return [found[b] for b in range(len(rows))]

    def _draw_alike(self, plain_MV: Tensor, logits_MV: Tensor, rows: list[Row]) -> tuple[list[Any], ...]:
        sampling, generators = rows[0].request.sampling, [row.generator for row in rows]
        penalised = sampling.repetition_penalty != 1
        if self.model.native is not None and sampling.top_p == 1 and sampling.min_p == 0 and not penalised:
            return draw(plain_MV, logits_MV, sampling.temperature, sampling.top_k, generators)
        if sampling.temperature == 0 and not penalised:
            ids_M, p_M = logits_MV.argmax(dim=-1), torch.ones(len(rows))
        else:
            context = torch.tensor([rows[0].ids]) if penalised else None
            p_MV = filtered_probabilities(logits_MV, sampling, context)
            ids_M = choose(p_MV, generators)
            p_M = p_MV.gather(1, ids_M[:, None]).squeeze(1)
        own_M = plain_MV.softmax(dim=-1).gather(1, ids_M[:, None]).squeeze(1)
        return ids_M.tolist(), p_M.tolist(), own_M.tolist()

    # Rows

    def _leave(self, at: int) -> None:
        """A row is done: it becomes the first of the idle ones."""
        if at < self.ready:
            self.ready -= 1
            self._trade(at, self.ready)
            at = self.ready
        self._trade(at, len(self.active) - 1)
        self.active.pop()

    def _trade(self, a: int, b: int) -> None:
        """Let two active rows trade places."""
        self.active[a], self.active[b] = self.active[b], self.active[a]
        self.cache.swap(a, b)

    def _tensor(self, ids: list[Any]) -> Tensor:
        return torch.tensor(ids, device=self.cache.tokens.device, dtype=torch.int64)


def most_likely(p_NV: Tensor, n: int, tokenizer: Tokenizer) -> list[list[Alternative]]:
    """The n most likely tokens of each row, best first."""
    if not n:
        return [[] for _ in p_NV]
    best = p_NV.topk(min(n, p_NV.shape[1]))
    return [
        [Alternative(i, tokenizer.token_text(i), p) for i, p in zip(ids, chances, strict=True)]
        for ids, chances in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]


@contextmanager
def _reading(model: Decoder) -> Iterator[None]:
    """In eval mode: a training loop samples in between, and dropout has no place in a sample."""
    if not model.training:  # to tell all modules again takes as long as a token of a small model
        yield
        return
    model.train(False)
    try:
        yield
    finally:
        model.train(True)
