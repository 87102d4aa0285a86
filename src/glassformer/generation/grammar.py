"""Grammars: the tokens that may come next so that a text becomes JSON of a schema, or follows a grammar in Lark's form.

    grammar = Grammar.json_schema(tokenizer, {"type": "object", "properties": {"age": {"type": "integer"}}})
    generate(model, tokenizer, "Ann is 31. ", grammar=grammar)

Before each token, llguidance (MIT, https://github.com/guidance-ai/llguidance) compares the bytes of every token with
what the grammar may continue with. Logits of tokens that do not fit become -inf, and the sampler works on the others.
Each sample has a state of its own. Special tokens never fit, but for the marks of a call where calls may come; those
that end a text fit where the text is complete.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from glassformer.errors import MissingExtraError, UsageError, one_line
from glassformer.generation.tools.calls import ToolForm
from glassformer.processors.tokenizers import Tokenizer
from glassformer.processors.tokenizers.kinds import BYTE_KINDS

MAX_CHARACTERS = 1 << 16  # of a schema or a grammar: what takes longest to compile takes 2 seconds
JSON, LARK = "json_schema", "lark_grammar"  # llguidance's names of the two forms
NO_ARGUMENTS: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}
# One space, or one line end and an indentation, between two parts: with more, a weak model writes nothing but spaces.
JSON_FORM = {"whitespace_pattern": r" |\n {0,32}"}


class Grammar:
    """What a text may be, compiled for one tokenizer: `json_schema` and `lark` make one.

    Raises:
        UsageError: llguidance refuses it, or the tokenizer's tokens do not spell texts. MissingExtraError: there is no
            llguidance.
    """

    def __init__(
        self, tokenizer: Tokenizer, form: str, text: str, *, what: str = "the grammar", marks: Collection[int] = ()
    ):
        self.tokenizer = tokenizer
        if len(text) > MAX_CHARACTERS:
            raise UsageError(f"{what} has {len(text):,} characters, and {MAX_CHARACTERS:,} are the most; shorten it")
        library, vocabulary = _library(), Vocabulary.of(tokenizer)
        limits = library.LLParserLimits(verbose_errors=False)
        source = f'{{"grammars": [{{"{form}": {text if form == JSON else json.dumps(text)}}}]}}'
        self._matcher = library.LLMatcher(vocabulary.compiled, source, log_level=0, limits=limits)
        if self._matcher.is_error():
            reason = self._matcher.get_error().partition("\n")[0]
            raise UsageError(f"{what} is refused: {one_line(reason, most=300).rstrip('.')}; change it")
        self._special = np.array([i for i in vocabulary.special_token_ids if i not in marks])

    @classmethod
    def json_schema(cls, tokenizer: Tokenizer, schema: Mapping[str, Any] | str) -> Grammar:
        """JSON that a schema describes, given as an object or as a text. Keywords that llguidance does not support are
        refused: https://github.com/guidance-ai/llguidance/blob/main/docs/json_schema.md

        Raises: as `Grammar`.
        """
        if isinstance(schema, str):
            try:
                schema = json.loads(schema)
            except (ValueError, RecursionError) as error:
                raise UsageError(f"the JSON schema is no JSON ({one_line(error)}); give an object") from None
        return cls(tokenizer, JSON, _schema_text(schema), what="the JSON schema")

    @classmethod
    def lark(cls, tokenizer: Tokenizer, text: str) -> Grammar:
        """What follows a grammar: https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md

        Raises: as `Grammar`.
        """
        return cls(tokenizer, LARK, text)

    @classmethod
    def call(cls, tokenizer: Tokenizer, functions: Mapping[str, Any], key: str, *, named: bool) -> Grammar:
        """The rest of the call of a tool that `ToolForm.opening` has begun.

        Args:
            functions: the schema of the arguments of each; None: it has none. key: what the arguments are called.
            named: whether the name of the one function has been written.

        Raises: as `Grammar`.
        """
        choices, rules = [], []
        for i, (name, schema) in enumerate(functions.items()):
            head = "" if named else json.dumps(f'{name}", "{key}": ')
            choices.append(f'{head} arguments{i} "}}"')
            rules.append(f"arguments{i}: %json {_schema_text(NO_ARGUMENTS if schema is None else schema)}")
        source = "\n".join([f"start: {' | '.join(choices)}", *rules])
        return cls(tokenizer, LARK, source, what="the schema of a function's parameters")

    @classmethod
    def may_call(cls, tokenizer: Tokenizer, functions: Mapping[str, Any], form: ToolForm) -> Grammar:
        """Any text, and calls that follow their schemas wherever the model begins one.

        Args:
            functions: the schema of the arguments of each; None: it has none. form: how the model writes calls.

        Raises: as `Grammar`.
        """
        choices, rules = [], []
        for i, (name, schema) in enumerate(functions.items()):
            choices.append(f'{json.dumps(form.opening_of(name))} arguments{i} "}}"')
            rules.append(f"arguments{i}: %json {_schema_text(NO_ARGUMENTS if schema is None else schema)}")
        marks = [i for i in form.special_ids(tokenizer) if i not in tokenizer.chat.turn_ends]
        special = " | ".join(["GAP", *(f"<[{i}]>" for i in marks)])
        if not form.mark:  # a turn that begins with an object is a call
            first, text = "/\\s*/", r"TEXT: /(\s*[^\s{](.|\n)*)?/"
        elif form.mark in tokenizer.special_tokens:
            first, text = f"TEXT <[{tokenizer.special_tokens[form.mark]}]> /[\\s\\[]*/", r"TEXT: /(.|\n)*/"
        else:
            first, text = "mark /[\\s\\[]*/", r"TEXT: /(.|\n)*/" + f"\nmark[lazy]: TEXT {json.dumps(form.mark)}"
        lines = [
            "start: TEXT | first call (between call)* between",
            f"first: {first}",
            f"between: ({special})*",
            r"GAP: /[^{]+/",
            f"call: {' | '.join(choices)}",
            text,
            *rules,
        ]
        return cls(tokenizer, LARK, "\n".join(lines), what="the schema of a function's parameters", marks=marks)

    def start(self, ends: Collection[int], n_logits: int) -> GrammarState:
        """The state before the first token.

        Args:
            ends: the tokens that end the text. n_logits: how many logits stand for tokens.

        Raises:
            UsageError: no token of the vocabulary can be the first.
        """
        matcher, end_bit = self._matcher.deep_copy(), self.tokenizer.vocab_size
        return GrammarState(matcher, self._special, [i for i in ends if i < n_logits], n_logits, end_bit)


class GrammarState:
    """How far one text has come.

    allowed_V: which tokens may come next. finished: the text is complete, and nothing may follow.
    """

    def __init__(self, matcher: Any, special: np.ndarray, ends: Sequence[int], n_logits: int, end_bit: int):
        self._matcher, self._special, self._ends = matcher, special[special < n_logits], ends
        self._n_logits, self._end_bit = n_logits, end_bit
        self._look()
        if self.finished:
            raise UsageError("the grammar allows the empty text only; change it")

    def accept(self, token: int) -> None:
        """Go on with the next token.

        Raises:
            UsageError: no token of the vocabulary can follow, or the grammar takes too much time here.
        """
        if token not in self._ends:
            self._matcher.consume_token(token)
            self._look()

    def mask(self, logits_V: Tensor) -> None:
        """Put -inf in place of the logits (on the CPU) of tokens that may not come."""
        np.copyto(logits_V.numpy(), -np.inf, where=~self.allowed_V.numpy())  # torch would wait for a second thread

    def _look(self) -> None:
        bits = np.unpackbits(np.frombuffer(self._matcher.compute_bitmask(), np.uint8), bitorder="little")
        if self._matcher.is_error():
            raise _stuck(self._matcher.get_error())
        allowed_V = bits[: self._n_logits].astype(bool)
        allowed_V[self._special] = False
        allowed_V[self._ends] = False
        complete = bool(bits[self._end_bit]) and self._matcher.is_accepting()
        self.finished = not allowed_V.any()
        if self.finished and not complete:
            raise _stuck("no token fits")
        allowed_V[self._ends] = complete
        self.allowed_V = torch.from_numpy(allowed_V)


class Vocabulary:
    """A tokenizer as llguidance takes it: bytes of all tokens, and one id more that stands for the end of a text.

    compiled: llguidance's own object.
    """

    bos_token_id = None

    def __init__(self, tokenizer: Tokenizer):
        missing = set(tokenizer.missing_ids)
        self.eos_token_id = tokenizer.vocab_size
        self.tokens = [b"" if i in missing else tokenizer.token_bytes(i) for i in range(tokenizer.vocab_size)] + [b"\0"]
        self.special_token_ids = sorted({*tokenizer.special_tokens.values(), *missing, self.eos_token_id})
        self._tokenizer = tokenizer
        self._check()
        self.compiled = _library().LLTokenizer(_library().TokenizerWrapper(self))

    @staticmethod
    @lru_cache(maxsize=4)
    def of(tokenizer: Tokenizer) -> Vocabulary:
        """That of a tokenizer; the last few are kept, since a large one takes most of a second."""
        return Vocabulary(tokenizer)

    def __call__(self, text: bytes | str) -> list[int]:
        """How the tokenizer itself spells a text in the middle of another: where a grammar leaves one text only,
        llguidance asks for its tokens."""
        raw = text.encode() if isinstance(text, str) else text
        shown = raw.decode("utf-8", "replace")
        if not self._tokenizer.unknown_characters(shown):
            for before in ("", "\n"):  # SentencePiece puts a space before a text, and behind a line end it is none
                ids = self._tokenizer.encode(before + shown)
                for n in range(min(3, len(ids))):
                    if b"".join(self.tokens[i] for i in ids[n:]) == raw:
                        return ids[n:]
        return self._longest_matches(raw)

    def _longest_matches(self, raw: bytes) -> list[int]:
        ids, at = list[int](), 0
        while at < len(raw):
            ends = range(min(len(raw), at + self._longest), at, -1)
            end = next((end for end in ends if raw[at:end] in self._ids), None)
            if end is None:
                break
            ids, at = [*ids, self._ids[raw[at:end]]], end
        return ids

    @cached_property
    def _ids(self) -> dict[bytes, int]:
        special = set(self.special_token_ids)
        return {token: i for i, token in enumerate(self.tokens) if token and i not in special}

    @cached_property
    def _longest(self) -> int:
        return max(map(len, self._ids), default=0)

    def _check(self) -> None:
        """Raise `UsageError` if texts are not the bytes of their tokens put together (WordPiece adds spaces)."""
        if self._tokenizer.kind in BYTE_KINDS:
            return
        words = [i for token, i in self._ids.items() if token.isalnum()][:8]
        spelled = b"".join(self.tokens[i] for i in words).decode("utf-8", "replace")
        if self._tokenizer.decode(words).lstrip() != spelled.lstrip():
            raise UsageError(
                f"a grammar needs a tokenizer whose tokens spell the text, and this one ({self._tokenizer.kind}) adds "
                "spaces between them; use a model with byte-level BPE, SentencePiece, bytes or characters"
            )


def grammar_of(
    tokenizer: Tokenizer, json_schema: Mapping[str, Any] | str | None = None, grammar: str | Grammar | None = None
) -> Grammar | None:
    """The grammar that a call gives in one of two ways; None: neither.

    Raises:
        UsageError: both are given. As `Grammar`.
    """
    if json_schema is not None and grammar is not None:
        raise UsageError("json_schema and grammar both say what the text may be; give one of them")
    if json_schema is not None:
        return Grammar.json_schema(tokenizer, json_schema)
    return Grammar.lark(tokenizer, grammar) if isinstance(grammar, str) else grammar


def _schema_text(schema: Any) -> str:
    if not isinstance(schema, Mapping):
        raise UsageError(f'a JSON schema is an object such as {{"type": "object"}}, and this is {one_line(schema, 40)}')
    own = schema.get("x-guidance", {})
    form = {**JSON_FORM, **own} if isinstance(own, Mapping) else own
    try:
        return json.dumps({**schema, "x-guidance": form}, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"the JSON schema cannot be written as JSON ({one_line(error)}); give plain data") from None


def _stuck(reason: str) -> UsageError:
    return UsageError(
        f"the text cannot go on as the grammar asks ({one_line(reason.partition(chr(10))[0], most=100)}); change the "
        "grammar, or use a model whose tokenizer spells every text"
    )


def _library() -> Any:
    try:
        import llguidance
    except ImportError:
        raise MissingExtraError("constrained output", "grammar") from None
    return llguidance
