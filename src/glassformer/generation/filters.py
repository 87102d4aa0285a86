"""Filters: what happens to the model's logits before a token is sampled or searched.

    logits --token_logits--> of real tokens --TokenRules--> what the model's folder forbids or demands
           --GrammarState.mask--> what a request's grammar allows (grammar.py)
           --filtered_probabilities--> after repetition penalty, temperature, top-k, top-p, min-p

Probabilities that are shown beside tokens stay the model's own.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor

from glassformer.errors import UsageError
from glassformer.generation.settings import Sampling
from glassformer.models import GenerationSettings, settings_of

FP32_MAX = torch.finfo(torch.float32).max
NO_LIMIT = 1 << 30  # of ids, for models of unknown vocabulary size


def token_logits(logits_BV: Tensor, n_tokens: int | None, missing: Sequence[int] = ()) -> Tensor:
    """The logits of those ids that are tokens, in fp32: (B, rows of the head) -> (B, n_tokens).

    A head may have rows that no token belongs to: those beyond the tokenizer's last id (padding to a round number) are
    cut off, and those between, `missing`, get -inf, so that neither can be sampled.
    """
    logits_BV = logits_BV[..., :n_tokens].float()
    known = [i for i in missing if i < logits_BV.shape[-1]]
    return logits_BV.index_fill(-1, torch.tensor(known, device=logits_BV.device), -math.inf) if known else logits_BV


def filtered_probabilities(logits_BV: Tensor, sampling: Sampling, context_BT: Tensor | None = None) -> Tensor:
    """The distribution to sample from: (B, V) logits -> (B, V) probabilities, 0 where a filter cut.

    At temperature 0 it is one-hot. context: the ids so far, needed for the repetition penalty only.
    """
    logits_BV = logits_BV.float()
    if sampling.repetition_penalty != 1.0 and context_BT is not None:
        seen = logits_BV.gather(1, context_BT)
        changed = torch.where(seen > 0, seen / sampling.repetition_penalty, seen * sampling.repetition_penalty)
        changed = changed.clamp(-FP32_MAX, FP32_MAX).where(seen > -math.inf, seen)  # finite, whatever the penalty
        logits_BV = logits_BV.scatter(1, context_BT, changed)
    if sampling.temperature == 0:
        return torch.zeros_like(logits_BV).scatter(1, logits_BV.argmax(dim=-1, keepdim=True), 1.0)
    # the best logit is brought to 0 first: a temperature near 0 then gives -inf and 0, never inf - inf
    logits_BV = (logits_BV - logits_BV.amax(dim=-1, keepdim=True)).div_(max(sampling.temperature, 1e-30))
    V = logits_BV.shape[-1]
    if 0 < sampling.top_k < V:
        worst_kept = logits_BV.topk(sampling.top_k, dim=-1).values[:, -1:]
        logits_BV.masked_fill_(logits_BV < worst_kept, -math.inf)
    p_BV = logits_BV.softmax(dim=-1)
    if sampling.top_p < 1:
        ordered, order = p_BV.sort(dim=-1, descending=True, stable=True)
        enough_before = ordered.cumsum(dim=-1) - ordered >= sampling.top_p  # the better ones reach p without it
        enough_before[..., 0] = False  # the best one stays, also where p is rounded to 0
        p_BV = p_BV.masked_fill(torch.zeros_like(enough_before).scatter(1, order, enough_before), 0.0)
    if sampling.min_p > 0:
        p_BV = p_BV.masked_fill(p_BV < sampling.min_p * p_BV.amax(dim=-1, keepdim=True), 0.0)
    return p_BV.div_(p_BV.sum(dim=-1, keepdim=True))


class TokenRules:
    """The rules of a model's folder for one text, in the order of transformers' `LogitsProcessor`s: which tokens are
    never generated, which must come, and when a text may end.

    Args:
        settings: of the model. ends: the tokens that end this text. vocab_size: how many logits there are.
        n_prompt: tokens before the first generated one; of an answer, its start token.
        penalty: also apply the folder's repetition penalty (for a search, which does not sample).

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
        for token in (settings.forced_bos_token_id, *settings.forced_eos_token_id, *self.forced.values()):
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
        """Change the logits of the token after `ids`, in place. Rules that together leave no token are not applied.

        Args:
            last: whether the text has its largest length with this token. dropped: how many tokens came before `ids`.
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
        n = self.settings.no_repeat_ngram_size
        found: list[int] = []
        if n and len(ids) >= n:
            beginning = tuple(ids[len(ids) + 1 - n :])
            found += [ids[i + n - 1] for i in range(len(ids) - n + 1) if tuple(ids[i : i + n - 1]) == beginning]
        found += [word[-1] for word in self.words if tuple(ids[-(len(word) - 1) :]) == word[:-1]]
        if length < self.settings.min_length or length - self.n_prompt < self.settings.min_new_tokens:
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
    """How answers of an encoder-decoder begin and end, and the rules of its folder in between.

    start: the token that answers begin with. ends: the tokens that end one. must_end: whether the folder sets the
    token that ends an answer of the largest length.

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
        self.must_end = bool(settings.forced_eos_token_id)
        self.rules = TokenRules(settings, ends, V, penalty=penalty)
        self.ends = self.rules.ends

    def apply(self, logits_RV: Tensor, answers_RT: Tensor, full_R: Tensor, *, on_logits: bool) -> Tensor:
        """The logits of R unfinished answers after the rules, as logits still.

        Args:
            answers_RT: their tokens so far. full_R: which have their largest length with this token. on_logits: a
                penalty works on logits (greedy), else on log-probabilities (beam search), both as in transformers.
        """
        if not self.rules.active:
            return logits_RV
        whole_R1 = logits_RV.logsumexp(dim=-1, keepdim=True)
        on_logits = on_logits and self.rules.penalty != 1
        scores_RV = logits_RV.clone() if on_logits else logits_RV - whole_R1
        for scores_V, tokens, full in zip(scores_RV, answers_RT.tolist(), full_R.tolist(), strict=True):
            self.rules.apply(scores_V, [self.start, *tokens], last=full)
        return scores_RV if on_logits else scores_RV + whole_R1
