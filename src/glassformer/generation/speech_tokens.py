"""The special tokens that Whisper's decoder starts from, and which tokens may come next.

    <|startofprev|> text before  <|startoftranscript|> [<|en|> <|transcribe|>] [<|notimestamps|>]   the prompt
    <|0.00|> Hello there.<|1.20|><|1.20|> How are you?<|2.60|><|endoftext|>                         the answer

Radford et al. 2022, https://arxiv.org/abs/2212.04356, fig. 1 and sect. 2.3 and 4.5; rules as in OpenAI's decoding.py.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from glassformer.errors import UsageError, did_you_mean
from glassformer.layers import KVCache, Memory
from glassformer.models import GenerationSettings, settings_of
from glassformer.processors.tokenizers import Tokenizer

START, NO_TIMES, BEFORE = "<|startoftranscript|>", "<|notimestamps|>", "<|startofprev|>"
TASKS = ("transcribe", "translate")
NO_SPEECH = ("<|nospeech|>", "<|nocaptions|>")  # two names of one token


@dataclass(frozen=True)
class SpeechTokens:
    """The tokens of a Whisper by id. special: all that are no text. languages, tasks: by name; empty for a model of
    English alone."""

    start: int
    end: int
    no_times: int
    before: int | None
    no_speech: int | None
    first_time: int
    special: frozenset[int]
    languages: dict[str, int]
    tasks: dict[str, int]

    @classmethod
    def of(cls, model: Any, tokenizer: Tokenizer) -> SpeechTokens | None:
        """Those of a model's tokenizer; None where it is not Whisper's."""
        return cls.known(tokenizer, many=bool(settings_of(model).declared.get("is_multilingual")))

    @classmethod
    def known(cls, tokenizer: Tokenizer, *, many: bool) -> SpeechTokens | None:
        """Those of a tokenizer. many: of a model of many languages."""
        known = tokenizer.special_tokens
        if START not in known or NO_TIMES not in known or tokenizer.end_of_text is None:
            return None
        names = {token[2:-2]: number for token, number in known.items()}
        languages = {name: number for name, number in names.items() if re.fullmatch("[a-z]{2,3}", name)}
        tasks: dict[str, int] = {name: names[name] for name in TASKS if name in names}
        return cls(
            start=known[START],
            end=tokenizer.end_of_text,
            no_times=known[NO_TIMES],
            before=known.get(BEFORE),
            no_speech=next((known[name] for name in NO_SPEECH if name in known), None),
            first_time=known[NO_TIMES] + 1,
            special=frozenset(known.values()),
            languages=languages if many else {},
            tasks=tasks if many else {},
        )

    def prompt(
        self, *, times: bool, language: str | None = None, task: str = "transcribe", text: Sequence[int] = ()
    ) -> list[int]:
        """What the decoder reads before it answers. text: ids of what was said before.

        Raises:
            UsageError: the model does not know the language, or has no such task.
        """
        before = [self.before, *text] if text and self.before is not None else []
        what: list[int] = []
        if self.languages:
            language = language or "en"
            if language not in self.languages:
                raise UsageError(f"language={language!r} is unknown; {did_you_mean(language, self.languages)}")
            if task not in self.tasks:
                raise UsageError(f"task={task!r} is unknown; use {' or '.join(self.tasks)}")
            what = [self.languages[language], self.tasks[task]]
        elif language not in (None, "en") or task != "transcribe":
            raise UsageError("this model writes down English and nothing else; leave out language and task")
        return [*before, self.start, *what, *([] if times else [self.no_times])]

    def text_ids(self, ids: Sequence[int]) -> list[int]:
        """The ids that are text, without special tokens and times."""
        return [i for i in ids if i < self.first_time and i not in self.special]


def plain_ids(tokenizer: Tokenizer, text: str) -> list[int]:
    """Ids of a text that a user gives: no special token and no time comes out of it, whatever it spells."""
    return [i for part in re.split(r"(?<=<)(?=\|)", text) for i in tokenizer.encode(part)]


class PromptedDecoder:
    """A Whisper as `beam_search` and `sample_answers` see it: an encoder-decoder whose source has been read already,
    whose answer begins after a prompt, and which writes only tokens that the rules allow.

    The source is the encoder's vectors (B, S, C). A decoder's first step reads the whole prompt; `no_speech_B` then
    holds the probability that there is no speech. Log-probabilities are those of the tokens that are allowed.

    Args:
        prompt: as of `SpeechTokens.prompt`. times: whether the answer has time stamps.
    """

    answers = frozenset({"target"})
    generation_settings = GenerationSettings()  # the rules are applied here

    def __init__(self, model: Any, tokens: SpeechTokens, prompt: Sequence[int], *, times: bool):
        self.model, self.tokens, self.prompt, self.times = model, tokens, list(prompt), times
        self.config = model.config
        settings = settings_of(model)
        V = model.config.vocab_size
        self.never_V = torch.zeros(V)
        never = {*settings.suppress_tokens, *tokens.special} - {tokens.end}
        self.never_V[[i for i in never if i < V]] = -math.inf
        if not times:
            self.never_V[tokens.first_time :] = -math.inf
        self.not_first = [i for i in settings.begin_suppress_tokens if i < V]
        # the last time stamp that an answer may begin with, in steps
        self.latest = settings.declared.get("max_initial_timestamp_index")
        self.training = bool(model.training)
        self.no_speech_B = torch.zeros(0)

    def train(self, mode: bool = True) -> Any:
        return self.model.train(mode)

    @property
    def most_tokens(self) -> int:
        """Of an answer: half of what the decoder reads, as OpenAI has it."""
        block_size: int = self.config.block_size
        return min(block_size // 2, block_size - len(self.prompt))

    def encode(self, source: Tensor, lengths_B: Tensor | None = None) -> Memory:
        """The vectors themselves."""
        return Memory(source, lengths_B)

    def new_cache(self, batch_size: int = 1, capacity: int | None = None) -> KVCache:
        cache: KVCache = self.model.new_cache(batch_size, None if capacity is None else capacity + len(self.prompt))
        return cache

    def decode(self, target_BT: Tensor, memory: Memory, *, cache: Any = None) -> Tensor:
        """Logits of the next token, (B, 1, V), -inf for what may not come. It needs a cache."""
        decoder, first = self.model.decoder, not cache.length
        if first:
            target_BT = torch.tensor([self.prompt], device=target_BT.device).expand(len(target_BT), -1)
        hidden_BTC = decoder.hidden(target_BT, cache=cache, memory=memory)
        logits_BV = decoder.logits(hidden_BTC[:, -1]).float()
        if first and self.tokens.no_speech is not None:
            start = self.prompt.index(self.tokens.start)
            at_start_BV = logits_BV if start == len(self.prompt) - 1 else decoder.logits(hidden_BTC[:, start]).float()
            self.no_speech_B = at_start_BV.softmax(dim=-1)[:, self.tokens.no_speech]
        return self.allowed(logits_BV, cache.tokens[:, len(self.prompt) : cache.length])[:, None]

    def allowed(self, logits_BV: Tensor, answer_BT: Tensor) -> Tensor:
        """The logits of the token after the answers so far, -inf for what may not come. Changes `logits_BV`.

        Time stamps come in pairs, except directly before the end, and never go back; the first token is one, early; and
        where all of them together are more likely than the likeliest other token, the next one is a time stamp.
        """
        end, first_time = self.tokens.end, self.tokens.first_time
        if answer_BT.shape[1] == self.most_tokens - 1:  # it is cut here, which costs nothing
            return torch.full_like(logits_BV, -math.inf).index_fill_(
                1, torch.tensor([end], device=logits_BV.device), 0.0
            )
        logits_BV = logits_BV + self.never_V.to(logits_BV.device)
        times_BN, others_BM = logits_BV[:, first_time:], logits_BV[:, :first_time]  # views
        T = answer_BT.shape[1]
        if T == 0:
            logits_BV[:, self.not_first] = -math.inf
            if self.times:
                others_BM.fill_(-math.inf)
                if self.latest is not None:
                    times_BN[:, self.latest + 1 :] = -math.inf
            return logits_BV
        if not self.times:
            return logits_BV
        stamps_BT = answer_BT >= first_time
        last_B, before_B = stamps_BT[:, -1], stamps_BT[:, -2] if T > 1 else torch.ones_like(stamps_BT[:, 0])
        open_B = last_B & ~before_B  # a segment has ended, and none has begun
        least_B = answer_BT.masked_fill(~stamps_BT, first_time - 1).amax(dim=1) - first_time + (~open_B).int()
        early_BN = torch.arange(times_BN.shape[1], device=times_BN.device) < least_B[:, None]
        times_BN.masked_fill_(early_BN | (last_B & before_B)[:, None], -math.inf)
        logits_BV[:, :end].masked_fill_(open_B[:, None], -math.inf)
        likelier_B = times_BN.logsumexp(dim=1) > others_BM.amax(dim=1)
        others_BM.masked_fill_(likelier_B[:, None], -math.inf)
        return logits_BV
