"""The engine: many requests at once, which come and go at any step, on one model and one cache.

    waiting ──admit──► reading its prompt ──► writing, one token a step ──► finished: idle, its keys are kept
                            (prefill)           (decode, all rows together)

Every step reads a part of the prompts and then generates one token in every row that is ready: one matrix product
for all of them (continuous batching: Yu et al. 2022, Orca). A request continues from the longest beginning that any row
has already read: the last turns of a chat, the prompt of another sample. Memory is bounded: when it is full, requests
wait. Rows in the cache stand in this order:

    ready to write | reading | idle

A request that fails fails alone: its event has the error, its rows are free again, and the others continue.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator
from itertools import count
from typing import Any

import torch
from torch import Tensor

from glassformer.errors import UsageError, plural
from glassformer.generation.eval_mode import evaluating
from glassformer.generation.filters import token_logits
from glassformer.generation.requests import Event, Piece, Request, most_likely, ranks
from glassformer.generation.rows import TextRow
from glassformer.generation.sampling import not_finite, sample_tokens
from glassformer.models import Decoder
from glassformer.processors.tokenizers import Tokenizer
from glassformer.threads import watch

_log = logging.getLogger(__name__)

MAX_ROWS = 32
PREFILL_TOKENS = 512  # of prompts, read in one step: how long the others wait at most
MAX_CACHE_BYTES = 2 << 30


class Engine:
    """Generates text with a `Decoder`: `submit` a `Request`, then call `step` while `busy`; every step gives `Event`s.

    `run` does both and raises what fails; from `step`, an error is an event, since other requests continue. An engine
    belongs to one thread.

    Args:
        max_rows: how many samples are generated at once.
        max_positions: how many tokens the cache holds, all rows together; by default what fits into 2 GiB, and never
            less than one whole context.
    """

    def __init__(
        self, model: Decoder, tokenizer: Tokenizer, *, max_rows: int = MAX_ROWS, max_positions: int | None = None
    ):
        if max_rows < 1:
            raise UsageError(f"max_rows={max_rows} is too small; use 1 or more")
        if not isinstance(model, Decoder):
            kind = type(model).__name__
            raise UsageError(f"chats and the engine need a decoder, and this is a {kind}; use glassformer generate")
        watch()
        self.model, self.tokenizer = model, tokenizer
        config = model.config
        weight = model.embedding.token.weight
        a_position = 2 * config.n_layer * config.n_kv_head * config.head_width * weight.element_size()
        affordable = max(config.block_size, min(MAX_CACHE_BYTES // a_position, max_rows * config.block_size))
        self.cache = model.new_row_cache(max_rows, affordable if max_positions is None else max_positions)
        self.active: list[TextRow] = []  # row i of the cache belongs to active[i]; those behind are idle
        self.ready = 0  # how many of them are ready to write
        self.waiting: deque[TextRow] = deque()
        self._numbers = count()

    @property
    def busy(self) -> bool:
        """Whether anything is left to do."""
        return bool(self.active or self.waiting)

    def submit(self, request: Request) -> int:
        """Take a request. Returns its number, which its events have.

        Raises:
            UsageError: the tokenizer or the model has no such token, or the request needs more memory than the cache
                may ever have.
        """
        request.check_tokens(self.tokenizer, self.model.config.vocab_size)
        number = next(self._numbers)
        rows = [TextRow(number, request, i, self.tokenizer, self.model) for i in range(request.samples)]
        if not self.cache.fits(1, rows[0].need):
            raise UsageError(
                f"the request takes {rows[0].need:,} tokens and the cache holds {self.cache.max_positions:,}; "
                "shorten the prompt or ask for fewer new tokens"
            )
        self.waiting.extend(rows)
        return number

    def run(self, *requests: Request) -> Iterator[Event]:
        """Submit these, and step until nothing is left to do; the events of all steps.

        Raises:
            UsageError: as `submit`. What made a request fail.
        """
        for request in requests:
            self.submit(request)
        while self.busy:
            for event in self.step():
                if event.error is not None:
                    raise event.error
                yield event

    def cancel(self, number: int) -> None:
        """End a request at once; no error if it is finished already or unknown."""
        self.waiting = deque(row for row in self.waiting if row.number != number)
        with torch.inference_mode():  # the cache was made in it
            for row in [row for row in self.active if row.number == number]:
                self._leave(self.active.index(row))

    def step(self) -> list[Event]:
        """Read some more of the prompts, and generate one token in every row that is ready."""
        with evaluating(self.model):
            events = self._read_prompts()
            return events + self._write()

    # Reading

    def _read_prompts(self) -> list[Event]:
        """Admit and read until the tokens of a step are used up, or nothing is left to read."""
        budget, events = PREFILL_TOKENS, []
        while budget > 0:
            reading = self.ready < len(self.active)
            row = self.active[self.ready] if reading else self.waiting[0] if self.waiting else None
            if row is None:
                break
            try:
                if not reading and not self._admit():
                    break
                n, scored = self._read(row, budget)
            except Exception as error:
                events.append(self._fail(row.number, error))
                continue
            budget -= n
            events += [Event(row.number, prompt=scored)] if scored else []
            if self.cache.lengths[self.ready] == len(row.seen) - 1:
                self.ready += 1
                if not row.left:
                    self._leave(self.ready - 1)
        return events

    def _read(self, row: TextRow, budget: int) -> tuple[int, tuple[Piece, ...]]:
        """Read some more of a row's prompt: how many tokens, and the scored tokens after them."""
        at = self.ready
        known = self.cache.lengths[at]
        pending = row.seen[known:-1][:budget]  # the last one is read together with all other rows
        if not pending:
            return 0, ()
        hidden_1TC = self.model.hidden(self._tensor([pending]), cache=self.cache.rows(at, at + 1))
        scores = row.request.score_prompt and not row.sample
        if not scores or row.start or row.dropped or len(row.ids) > len(row.request.ids):
            return len(pending), ()
        return len(pending), self._score(row, known, hidden_1TC)

    def _score(self, row: TextRow, known: int, hidden_1TC: Tensor) -> tuple[Piece, ...]:
        """The model's probabilities of the tokens that followed those it has just read."""
        logits_TV = self._of_tokens(self.model.logits(hidden_1TC)[0])
        own_TV = logits_TV.softmax(dim=-1)
        tokens = row.seen[known + 1 : known + 1 + len(own_TV)]
        if not own_TV[:, 0].isfinite().all():
            raise not_finite()
        best = most_likely(own_TV, row.request.alternatives, self.tokenizer)
        rank = ranks(logits_TV, tokens) if row.request.ranks else [None] * len(tokens)
        text = self.tokenizer.token_text
        return tuple(
            Piece(text(token), token, text(token), p := float(own_TV[t, token]), p, best[t], rank=rank[t])
            for t, token in enumerate(tokens)
        )

    def _admit(self) -> bool:
        """Give the next sample that waits a row; False if none waits or the cache is full."""
        if not self.waiting:
            return False
        row, n = self.waiting[0], len(self.active)
        needed = max([row.need, *(other.need for other in self.active)])
        if not self.cache.fits(n + 1, needed):
            return False
        source, shared = (n, 0) if row.request.score_prompt else self._longest_beginning(row.seen[:-1])
        if shared and source >= n:  # the first of the idle rows is the last to be evicted
            self.cache.swap(n, source)
            source = n
        take_over = shared > 0 and source == n and 2 * shared >= self.cache.lengths[n]
        target = self._free_row(n, needed, take_over)
        if shared and target != source:
            self.cache.copy(source, target, shared)
        self.cache.rewind(target, shared)
        self.cache.swap(n, target)
        self.active.append(self.waiting.popleft())
        return True

    def _free_row(self, n: int, needed: int, take_over: bool) -> int:
        """A row beside the n active ones: the first idle one to take over, an empty, a new, else the last idle one."""
        cache = self.cache
        capacity = max(needed, cache.capacity)
        if not cache.fits(n + 1, capacity):
            capacity = needed  # a long one has left, and its positions are free
        empty = next((i for i in range(n, cache.n_rows) if not cache.lengths[i]), None)
        rows = cache.n_rows if take_over or empty is not None else max(2 * cache.n_rows, 1)
        new = cache.n_rows if rows > cache.n_rows else None
        while not cache.fits(rows, capacity):
            rows -= 1  # idle rows are evicted
        cache.resize(rows, capacity)
        if take_over:
            return n
        found = empty if empty is not None else new
        return found if found is not None and found < rows else rows - 1

    def _longest_beginning(self, ids: list[int]) -> tuple[int, int]:
        """The row that has read most of the beginning of these tokens, and how many of them."""
        cache, n = self.cache, len(self.active)
        if not cache.n_rows or not ids:
            return n, 0
        seen_RT = cache.tokens[: cache.n_rows, : len(ids)]
        known_RT = torch.arange(seen_RT.shape[1]) < torch.tensor(cache.lengths)[:, None]
        same_RT = (seen_RT == self._tensor(ids)[: seen_RT.shape[1]]).cpu() & known_RT
        shared = same_RT.long().cumprod(dim=1).sum(dim=1).tolist()
        for i, row in enumerate(self.active):
            if row.start or row.dropped:
                shared[i] = 0
        best = max(range(len(shared)), key=shared.__getitem__)
        return (best, shared[best]) if shared[best] else (n, 0)

    # Writing

    def _write(self) -> list[Event]:
        """One more token in every row that is ready."""
        rows = self.active[: self.ready]
        if not rows:
            return []
        logits_BV, failed = self._next_logits(rows)
        sampled = sample_tokens(logits_BV, rows, compiled=self.model.native is not None)
        pieces: dict[int, Piece] = {}
        for b, row in enumerate(rows):
            try:
                found = failed.get(b, sampled[b])
                if isinstance(found, Exception):
                    raise found
                pieces[b] = row.take(found, logits_BV[b])
            except Exception as error:
                failed[b] = error
        for at in reversed(pieces):
            if pieces[at].finish_reason is not None:
                self._leave(at)
            elif rows[at].slide():
                self.cache.rewind(at, 0)
                self.ready -= 1
                self._trade(at, self.ready)
        errors = {rows[b].number: error for b, error in failed.items()}
        return [Event(rows[b].number, piece) for b, piece in pieces.items()] + list(
            map(self._fail, errors, errors.values())
        )

    def _next_logits(self, rows: list[TextRow]) -> tuple[Tensor, dict[int, Exception]]:
        """(B, V) logits for the next token, and errors by place: if all rows together fail, each is tried by itself."""
        known = self.cache.lengths[: len(rows)]
        try:
            return self._logits(rows, 0), {}
        except Exception:
            _log.exception("a step of %s failed; each is computed by itself now", plural(len(rows), "sample"))
        failed: dict[int, Exception] = {}
        logits_BV = torch.zeros(len(rows), self.tokenizer.vocab_size)
        for at, row in enumerate(rows):
            self.cache.lengths[at] = known[at]
            try:
                logits_1V = self._logits([row], at)
                logits_BV[at, : logits_1V.shape[1]] = logits_1V[0]
            except Exception as error:
                failed[at] = error
        return logits_BV, failed

    def _logits(self, rows: list[TextRow], at: int) -> Tensor:
        """(B, V) logits after the last token of rows that stand side by side, the first one at place `at`."""
        logits_B1V = self.model(
            self._tensor([[row.ids[-1]] for row in rows]), cache=self.cache.rows(at, at + len(rows))
        )
        return self._of_tokens(logits_B1V[:, 0])

    def _of_tokens(self, logits_NV: Tensor) -> Tensor:
        """On the CPU, without the rows that no token belongs to."""
        return token_logits(logits_NV, self.tokenizer.vocab_size, self.tokenizer.missing_ids).cpu()

    # Rows

    def _fail(self, number: int, error: Exception) -> Event:
        """End a request that failed. Its rows are emptied: what they have read may be the cause."""
        for at, row in enumerate(self.active):
            if row.number == number:
                self.cache.rewind(at, 0)
        self.cancel(number)
        if not self.active:
            self.cache.resize(0, 0)
        return Event(number, error=error)

    def _leave(self, at: int) -> None:
        """A row is finished: it becomes the first of the idle ones."""
        if at < self.ready:
            self.ready -= 1
            self._trade(at, self.ready)
            at = self.ready
        self._trade(at, len(self.active) - 1)
        self.active.pop()

    def _trade(self, a: int, b: int) -> None:
        """Exchange two active rows."""
        self.active[a], self.active[b] = self.active[b], self.active[a]
        self.cache.swap(a, b)

    def _tensor(self, ids: list[Any]) -> Tensor:
        return torch.tensor(ids, device=self.cache.tokens.device, dtype=torch.int64)
