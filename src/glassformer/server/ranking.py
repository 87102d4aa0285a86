"""A person compares a served model's answers on the page; the file of pairs is that of `glassformer rank`.

GET  /api/rank?model=NAME     the prompt that comes next and answers to it; null where there is nothing to rank
POST /api/rank                place, pick: which answer is the best, null skips
POST /api/rank/undo           take the last choice back
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import Field

from glassformer.data.chat_sets import chat_rows
from glassformer.errors import UsageError
from glassformer.generation import Request, Sampling
from glassformer.server.middleware import APIError
from glassformer.server.schemas import Body
from glassformer.server.worker import ModelHandle, Submission, find_model
from glassformer.tasks.chats import prompt_ids
from glassformer.tasks.rankings import TRIES, Rankings

TEMPERATURE = 0.8
MAX_NEW_TOKENS = 128
SEED = 1337


class PickBody(Body):
    """`POST /api/rank`: the best of the answers to the prompt at `place`."""

    place: Annotated[int, Field(ge=0)]
    pick: Annotated[int | None, Field(ge=0, le=3)] = None


class Ranking:
    """Prompts, the file of pairs, and the answers that were shown.

    Args:
        prompts: a file or a set by name. pairs: the `.jsonl` file, continued if it exists. answers: to each prompt.

    Raises:
        UsageError, DataError: as `Rankings`.
    """

    def __init__(self, prompts: str, pairs: Path, answers: int = 2):
        self.rankings, self.answers = Rankings(chat_rows(prompts), pairs), answers
        self.shown: dict[int, list[str]] = {}
        self._lock = asyncio.Lock()

    async def current(self, handle: ModelHandle) -> dict[str, Any]:
        """What is to be compared now; a prompt to which the model has only one answer is skipped."""
        async with self._lock:
            r = self.rankings
            while r.row is not None and r.place not in self.shown:
                found = await self._different(handle, r.place)
                if len(found) < 2:
                    r.pick(found, None)
                else:
                    self.shown[r.place] = found
            return {
                "model": handle.name,
                "file": str(r.out),
                "place": r.place,
                "prompts": len(r.rows),
                "pairs": len(r.pairs),
                "prompt": None if r.row is None else r.row.prompt,
                "answers": self.shown.get(r.place, []),
            }

    def pick(self, place: int, best: int | None) -> None:
        """
        Raises:
            APIError: another prompt is to be ranked now, or there is no such answer.
        """
        r, answers = self.rankings, self.shown.get(place, [])
        if place != r.place or not answers:
            raise APIError(409, f"prompt {place + 1} is not the one to rank now; reload the page", code="other_place")
        if best is not None and best >= len(answers):
            raise APIError(400, f"pick={best}: there are {len(answers)} answers, from 0", param="pick")
        r.pick(answers, best)

    async def _different(self, handle: ModelHandle, place: int) -> list[str]:
        row, tokenizer = self.rankings.rows[place], handle.tokenizer
        ids = prompt_ids(tokenizer, row)
        free = handle.block_size - len(ids)
        if free < 1:
            raise UsageError(
                f"{row.place}: the prompt has {len(ids)} tokens and {handle.name} reads {handle.block_size}"
            )
        found: dict[str, None] = {}
        for attempt in range(TRIES):
            request = Request(
                ids=tuple(ids),
                max_new_tokens=min(MAX_NEW_TOKENS, free),
                samples=self.answers,
                sampling=Sampling(temperature=TEMPERATURE, seed=SEED + (place * TRIES + attempt) * self.answers),
                end_tokens=frozenset(tokenizer.chat.turn_ends) if row.is_chat else None,
            )
            assert handle.worker is not None
            submission = Submission(handle.worker, [request])
            try:
                await submission.submit()
                texts = ["".join(piece.text for piece in pieces) for pieces in await submission.gather()]
            finally:
                submission.cancel()
            found |= dict.fromkeys(text for text in texts if text.strip())
            if len(found) >= self.answers:
                break
        return [*found][: self.answers]


def rank_routes(models: Any, ranking: Ranking | None) -> APIRouter:
    """The paths under `/api/rank`; None: there is nothing to rank."""
    routes = APIRouter(prefix="/api/rank")

    def allowed() -> Ranking:
        if ranking is None:
            raise APIError(403, "there is nothing to rank; serve with: --rank PROMPTS --pairs FILE.jsonl")
        return ranking

    @routes.get("")
    async def current(model: Annotated[str | None, Query(max_length=300)] = None) -> Any:
        """The prompt that comes next, with answers."""
        return None if ranking is None else await ranking.current(find_model(models, model, generates=True))

    @routes.post("")
    def pick(body: PickBody) -> Any:
        """Keep which answer is better than the others."""
        allowed().pick(body.place, body.pick)
        return {"pairs": len(allowed().rankings.pairs)}

    @routes.post("/undo")
    def undo() -> Any:
        """Take the last choice back."""
        return {"undone": allowed().rankings.undo()}

    return routes
