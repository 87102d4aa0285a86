"""Rules of a model's folder about the next token: which are never drawn, which must come, and when a text may end.

They work on logits before anything is drawn or searched, in the order of `transformers` (its `LogitsProcessor`s). The
probabilities that are shown beside tokens stay the model's own.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor

from glassformer.errors import UsageError
from glassformer.models import GenerationSettings, settings_of

NO_LIMIT = 1 << 30  # of ids, for models that do not say how many tokens they have


class TokenRules:
    """The rules for one text under way.

    Args:
        settings: of the model. ends: the tokens that end this text. vocab_size: how many logits there are.
        n_prompt: tokens that are there before the first one is drawn; of an answer, its start token alone.
        penalty: also apply the folder's repetition penalty (where a search draws nothing).

    Raises:
        UsageError: a token that must come is not in the vocabulary.
    """

    def __init__(
        self,
        settings: GenerationSettings,
        ends: Collection[int],
        vocab_size: int,
        *,
        n_prompt: int = 1,
        penalty: bool = False,
    ):
        self.settings, self.n_prompt = settings, n_prompt
        self.penalty = (settings.repetition_penalty or 1.0) if penalty else 1.0
        self.ends = [i for i in sorted(ends) if i < vocab_size]
        self.forced = {place: token for place, token in settings.forced_decoder_ids if token is not None and place}
        wanted = (settings.forced_bos_token_id, *settings.forced_eos_token_id, *self.forced.values())
        for token in wanted:
            if token is not None and token >= vocab_size:
                raise UsageError(
                    f"generation_config.json forces token {token}, which is not in the vocabulary (0 to "
                    f"{vocab_size - 1}); do the model and the tokenizer belong together?"
                )
        words = [word for word in settings.bad_words_ids if word and max(word) < vocab_size]
        single = {word[0] for word in words if len(word) == 1} - set(ends)
        self.never = [i for i in sorted(single.union(settings.suppress_tokens)) if i < vocab_size]
        self.not_first = [i for i in settings.begin_suppress_tokens if i < vocab_size]
        self.first = max([n_prompt, *(place + 1 for place in self.forced)])
        if n_prompt == 1 and settings.forced_bos_token_id is not None:
            self.first += 1
        self.words = [word for word in words if len(word) > 1]
        self.active = bool(
            self.never
            or self.not_first
            or self.words
            or self.forced
            or self.penalty != 1
            or settings.forced_bos_token_id is not None
            or settings.forced_eos_token_id
            or settings.no_repeat_ngram_size
            or (self.ends and (settings.min_length or settings.min_new_tokens))
        )

    def apply(self, logits_V: Tensor, ids: Sequence[int], *, last: bool, dropped: int = 0) -> None:
        """Change the logits of the token behind `ids`, in place.

        Args:
            last: whether the text is as long as it may be with this token. dropped: how many tokens came before `ids`.

        Where the rules together leave no token, they are not applied to it.
        """
        before_V = logits_V.clone()
        if self.penalty != 1:
            seen = torch.tensor(sorted(set(ids)), device=logits_V.device)
            scores = logits_V[seen]
            logits_V[seen] = torch.where(scores > 0, scores / self.penalty, scores * self.penalty)
        length = len(ids) + dropped
        logits_V[self._forbidden(ids, length)] = -math.inf
        if must := self._must(length, last):
            forced_V = torch.full_like(logits_V, -math.inf)
            forced_V[must] = 0.0
            logits_V.copy_(forced_V)
        logits_V[self.never] = -math.inf
        if length == self.first:
            logits_V[self.not_first] = -math.inf
        if not (logits_V > -math.inf).any():
            logits_V.copy_(before_V)

    def _forbidden(self, ids: Sequence[int], length: int) -> list[int]:
        settings = self.settings
        n = settings.no_repeat_ngram_size
        found: list[int] = []
        if n and len(ids) >= n:
            beginning = tuple(ids[len(ids) + 1 - n :])
            found += [ids[i + n - 1] for i in range(len(ids) - n + 1) if tuple(ids[i : i + n - 1]) == beginning]
        found += [word[-1] for word in self.words if tuple(ids[-(len(word) - 1) :]) == word[:-1]]
        if length < settings.min_length or length - self.n_prompt < settings.min_new_tokens:
            found += self.ends
        return found

    def _must(self, length: int, last: bool) -> list[int]:
        if length in self.forced:
            return [self.forced[length]]
        if last and self.settings.forced_eos_token_id:
            return list(self.settings.forced_eos_token_id)
        first = self.settings.forced_bos_token_id
        return [first] if first is not None and length == 1 else []


class AnswerRules:
    """How answers of a sequence-to-sequence model begin and end, and the rules of its folder in between.

    start: the token that answers begin with. ends: the tokens that end one. must_end: whether the folder says which
    token ends an answer that is as long as it may be.

    Args:
        n_logits: how many of the model's logits stand for tokens; None: all. penalty: as of `TokenRules`.
    """

    def __init__(self, model: Any, n_logits: int | None, *, penalty: bool = True):
        settings, config = settings_of(model), model.config
        settings.check()
        start = settings.decoder_start_token_id
        self.start: int = config.start_token if start is None else start
        V = min(getattr(config, "vocab_size", NO_LIMIT), NO_LIMIT if n_logits is None else n_logits)
        if start is not None and start >= V:
            raise UsageError(
                f"generation_config.json: decoder_start_token_id={start} is not one of the {V} tokens; correct it there"
            )
        ends = {config.end_token, *settings.eos_token_id, *settings.forced_eos_token_id}
        self.ends = sorted(end for end in ends if end < V)
        self.must_end = bool(settings.forced_eos_token_id)
        self.rules = TokenRules(settings, self.ends, V, penalty=penalty)

    def ruled(self, logits_RV: Tensor, said_RT: Tensor, full_R: Tensor, *, searching: bool) -> Tensor:
        """The logits of R open answers after the rules, as logits still.

        Args:
            said_RT: what each has said. full_R: which are as long as they may be with this token. searching: among
                several, so that a penalty works on log-probabilities, and not on logits (both as in transformers).
        """
        if not self.rules.active:
            return logits_RV
        whole_R1 = logits_RV.logsumexp(dim=-1, keepdim=True)
        by_logits = not searching and self.rules.penalty != 1
        scores_RV = logits_RV.clone() if by_logits else logits_RV - whole_R1
        for scores_V, said, full in zip(scores_RV, said_RT.tolist(), full_R.tolist(), strict=True):
            self.rules.apply(scores_V, [self.start, *said], last=full)
        return scores_RV if by_logits else scores_RV + whole_R1
