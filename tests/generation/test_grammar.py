"""Output that follows a grammar: JSON of a schema, whatever the weights, and nothing else changes."""

from __future__ import annotations

import json
import math
from functools import cache
from typing import Any

import jsonschema
import pytest
import torch
from skips import NEEDS_COMPILER
from toys import toy_model

pytest.importorskip("llguidance", reason="needs the extra grammar")

from glassformer.errors import UsageError
from glassformer.generation import Chat, Engine, Grammar, Piece, Request, Sampling, generate, stream
from glassformer.models import GenerationSettings
from glassformer.native import library, quantized_copy
from glassformer.processors.tokenizers import TOKENIZERS, Tokenizer

TEXT = 'The quick brown fox jumps over my lazy dog. {"a": [1, -2.5e+30, true]} éß😀 0123456789 \\/ null VGKSWXZ\n'
BOUNDED = {"additionalProperties": False}
SCHEMAS: dict[str, dict[str, Any]] = {
    "strings with escapes": {
        "type": "object",
        "properties": {"name": {"type": "string", "minLength": 3, "maxLength": 7}, "mark": {"const": 'a"\\n/é😀'}},
        "required": ["name", "mark"],
        **BOUNDED,
    },
    "enums and unions": {
        "type": "array",
        "items": {"anyOf": [{"enum": ["é😀", "\u0007", None, 1]}, {"type": "boolean"}]},
        "minItems": 2,
        "maxItems": 3,
    },
    "nested arrays": {
        "type": "array",
        "items": {
            "type": "array",
            "items": {"type": "array", "items": {"type": "integer"}, "maxItems": 2},
            "maxItems": 2,
        },
        "minItems": 1,
        "maxItems": 2,
    },
    "numbers": {
        "type": "object",
        "properties": {
            "percent": {"type": "number", "minimum": 0, "maximum": 100},
            "dice": {"type": "integer", "minimum": 1, "exclusiveMaximum": 7},
        },
        "required": ["percent", "dice"],
        **BOUNDED,
    },
    "definitions and patterns": {
        "$defs": {"code": {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{3}$"}},
        "type": "object",
        "properties": {
            "first": {"$ref": "#/$defs/code"},
            "others": {"type": "array", "items": {"$ref": "#/$defs/code"}, "maxItems": 2},
        },
        "required": ["first"],
        **BOUNDED,
    },
}
PERSON = SCHEMAS["numbers"]


@cache
def toy(kind: str) -> tuple[Any, Tokenizer]:
    size = {"bpe": {"vocab_size": 290}, "sentencepiece": {"vocab_size": 350}}.get(kind, {})
    tokenizer = TOKENIZERS[kind]([TEXT] * 9, **size)
    return toy_model("modern", vocab_size=tokenizer.vocab_size, block_size=64), tokenizer


def text_of(pieces: list[Piece]) -> str:
    return "".join(piece.text for piece in pieces)


EVERY_SCHEMA = [(kind, name) for kind in ("bytes", "bpe") for name in SCHEMAS]


@pytest.mark.parametrize(
    ("kind", "name"), [*EVERY_SCHEMA, ("characters", "strings with escapes"), ("sentencepiece", "enums and unions")]
)
def test_random_weights_write_json_of_the_schema(kind: str, name: str) -> None:
    if kind == "sentencepiece":
        pytest.importorskip("sentencepiece", reason="needs the extra sentencepiece")
    model, tokenizer = toy(kind)
    done = generate(model, tokenizer, "The", samples=20, seed=3, max_new_tokens=900, json_schema=SCHEMAS[name])
    for completion in done:
        assert completion.finish_reason in ("stop", "end_of_text"), completion.text
        jsonschema.validate(json.loads(completion.text), SCHEMAS[name])
        completion.text.encode()  # no half of a surrogate pair
    assert len({completion.text for completion in done}) > 1


def test_without_a_mask_the_same_weights_write_no_json() -> None:
    for completion in generate(*toy("bytes"), "The", samples=20, seed=3, max_new_tokens=60):
        with pytest.raises(ValueError):
            json.loads(completion.text)


def request_of(tokenizer: Tokenizer, text: str, *, schema: Any = None, **fields: Any) -> Request:
    grammar = None if schema is None else Grammar.json_schema(tokenizer, schema)
    return Request(tuple(tokenizer.encode(text)), grammar=grammar, **fields)


def run(model: Any, tokenizer: Tokenizer, *requests: Request) -> dict[int, list[Any]]:
    """Of each request its pieces, or its error."""
    engine, found = Engine(model, tokenizer), dict[int, list[Any]]()
    for request in requests:
        engine.submit(request)
    while engine.busy:
        for event in engine.step():
            found.setdefault(event.request, []).append(event.error or event.piece)
    return found


@pytest.mark.parametrize(
    "sampling", [Sampling(seed=5), Sampling(temperature=0.7, top_k=9, top_p=0.9), Sampling(temperature=0)]
)
def test_neighbours_without_a_grammar_are_the_same_to_the_last_bit(sampling: Sampling) -> None:
    model, tokenizer = toy("bpe")
    first, last = (request_of(tokenizer, text, sampling=sampling, max_new_tokens=40) for text in ("The", "dog"))
    middle = request_of(tokenizer, "fox", schema=PERSON, sampling=sampling, max_new_tokens=40)
    constrained = run(model, tokenizer, first, middle, last)
    n = len(constrained[1])  # the shapes of all products are the same with a free neighbour of this length
    free = run(model, tokenizer, first, request_of(tokenizer, "fox", sampling=sampling, max_new_tokens=n), last)
    assert constrained[0] == free[0] and constrained[2] == free[2] and constrained[1] != free[1]
    assert n > 2 and json.loads(text_of(constrained[1]))


@pytest.mark.skipif(library() is None, reason=NEEDS_COMPILER)
@pytest.mark.parametrize("sampling", [{"temperature": 0}, {"temperature": 2.0, "top_k": 40, "seed": 1}])
def test_the_compiled_sampler_keeps_to_it(sampling: dict[str, Any]) -> None:
    tokenizer = toy("bytes")[1]
    plain = toy_model("modern", vocab_size=tokenizer.vocab_size, block_size=64, n_embd=64, n_hidden=64, head_width=32)
    model = quantized_copy(plain, 8)
    assert model.native is not None
    for done in generate(model, tokenizer, "The", samples=5, max_new_tokens=600, json_schema=PERSON, **sampling):
        jsonschema.validate(json.loads(done.text), PERSON)


def test_alone_and_without_a_cache_the_same_text_comes() -> None:
    model, tokenizer = toy("bpe")
    whole = [
        text_of(list(stream(model, tokenizer, "The", seed=7, json_schema=PERSON, use_cache=c))) for c in (True, False)
    ]
    in_batch = generate(model, tokenizer, "The", seed=5, samples=4, json_schema=json.dumps(PERSON))
    assert whole[0] == whole[1] == in_batch[2].text


def test_probabilities_show_what_the_grammar_forbids() -> None:
    model, tokenizer = toy("bytes")
    pieces = list(
        stream(model, tokenizer, "The", seed=1, json_schema={"enum": ["yes", "no"]}, alternatives=tokenizer.vocab_size)
    )
    assert text_of(pieces) in ('"yes"', '"no"')
    before = tokenizer.encode("The")
    for piece in pieces:
        own = model(torch.tensor([before]))[0, -1].detach().softmax(-1)
        allowed = [other.token for other in piece.alternatives if other.allowed]
        assert piece.token in allowed and len(piece.alternatives) == tokenizer.vocab_size
        assert piece.probability == pytest.approx(float(own[piece.token]), rel=1e-4)
        assert piece.allowed_probability == pytest.approx(float(own[allowed].sum()), rel=1e-4)
        assert piece.sampling_probability == pytest.approx(piece.probability / piece.allowed_probability, rel=1e-3)
        before.append(piece.token)
    assert [sum(other.allowed for other in piece.alternatives) for piece in pieces[:2]] == [1, 2]  # ", then y or n
    free = next(iter(stream(model, tokenizer, "The", alternatives=3)))
    assert free.allowed_probability == 1 and all(other.allowed for other in free.alternatives)


@pytest.mark.parametrize("kind", ["bytes", "bpe"])
def test_special_tokens_never_come_and_the_end_only_where_the_text_is_complete(kind: str) -> None:
    model, tokenizer = toy(kind)
    end = tokenizer.end_of_text
    never = [i for i in tokenizer.special_tokens.values() if i != end]
    grammar = Grammar.json_schema(tokenizer, {"type": "integer"})
    bias = dict.fromkeys([end, *never], 1e4)
    request = Request((1,), grammar=grammar, logit_bias=bias, samples=5, max_new_tokens=9)
    for sample in range(5):
        pieces = [piece for piece in run(model, tokenizer, request)[0] if piece.sample == sample]
        text = text_of(pieces)
        assert isinstance(json.loads(text), int) and text[:-1] in ("", "-")  # it ends as early as it may
        assert {piece.token for piece in pieces[:-1]}.isdisjoint(bias)
        if text[-1] != "0":  # nothing may follow a 0, and then no end is sampled
            assert (pieces[-1].token, pieces[-1].finish_reason) == (end, "end_of_text")


def test_a_text_that_is_cut_off_says_so() -> None:
    (done,) = generate(*toy("bytes"), "The", max_new_tokens=4, json_schema={"const": "much longer"})
    assert (done.text, done.finish_reason) == ('"muc', "length")
    (done,) = generate(*toy("bytes"), "The", max_new_tokens=4, json_schema={"const": "ab"})
    assert (done.text, done.finish_reason) == ('"ab"', "stop")


def test_rules_of_the_folder_give_way_where_they_leave_nothing() -> None:
    model, tokenizer = toy("bytes")
    model = toy_model("modern", vocab_size=tokenizer.vocab_size, block_size=64)
    quote = tokenizer.encode('"')[0]
    model.generation_settings = GenerationSettings(suppress_tokens=[quote, tokenizer.encode("a")[0]])
    texts = {done.text for done in generate(model, tokenizer, "x", samples=9, json_schema={"enum": ["a", "b"]})}
    assert texts == {'"b"'}


def test_a_grammar_in_larks_form() -> None:
    done = generate(*toy("bpe"), "The", samples=9, grammar='start: WORD ("," WORD)~2\nWORD: /[a-c]{2}/')
    assert all(len(c.text) == 8 and set(c.text) <= set("abc,") for c in done)


def test_a_text_that_the_vocabulary_cannot_spell_fails_alone() -> None:
    model, tokenizer = toy("characters")
    bad = request_of(tokenizer, "The", schema={"const": "#"}, max_new_tokens=9)  # the characters have no #
    good = request_of(tokenizer, "The", max_new_tokens=9)
    found = run(model, tokenizer, bad, good)
    assert isinstance(found[0][-1], UsageError) and "tokenizer" in str(found[0][-1])
    assert [piece.token for piece in found[1]] == [piece.token for piece in run(model, tokenizer, good)[0]]


@pytest.mark.parametrize(
    ("schema", "named"),
    [
        ({"type": "array", "uniqueItems": True}, "uniqueItems"),
        ({"type": "text"}, "text"),
        ({"$ref": "https://example.com/schema.json"}, "example.com"),
        ({"type": "string", "pattern": "("}, "pattern|regex|paren"),
        ("[1", "no JSON"),
        ("[]", "object"),
        ({"minimum": math.nan}, "JSON"),
        ({"enum": ["x" * 70_000]}, "characters"),
        ({"allOf": [{"anyOf": [{"required": [f"{i}{j}"]} for j in range(9)]} for i in range(9)]}, "too large"),
    ],
)
def test_schemas_that_are_refused_name_the_reason_in_one_line(schema: Any, named: str) -> None:
    with pytest.raises(UsageError, match=named) as error:
        generate(*toy("bytes"), "x", json_schema=schema)
    assert "\n" not in str(error.value) and len(str(error.value)) < 500


def test_a_deeply_nested_schema_is_an_error_and_no_crash() -> None:
    schema: dict[str, Any] = {}
    for _ in range(900):
        schema = {"items": schema}
    with pytest.raises(UsageError, match="recursion"):
        Grammar.json_schema(toy("bytes")[1], schema)


def test_contradictions_are_refused() -> None:
    model, tokenizer = toy("bytes")
    with pytest.raises(UsageError, match="one of them"):
        generate(model, tokenizer, "x", json_schema={}, grammar="start: /a/")
    with pytest.raises(UsageError, match="endless"):
        stream(model, tokenizer, "x", json_schema={}, endless=True)
    with pytest.raises(UsageError, match="spell"):
        Grammar.json_schema(TOKENIZERS["words"]([TEXT]), {})
    with pytest.raises(UsageError, match="tokenizer"):
        other = Grammar.json_schema(toy("bpe")[1], {})
        Engine(model, tokenizer).submit(Request((1,), grammar=other))


def test_each_answer_of_a_chat_follows_the_grammar() -> None:
    model, tokenizer = toy("bytes")
    chat = Chat(model, tokenizer, grammar=Grammar.json_schema(tokenizer, {"enum": ["yes", "no"]}))
    for turn in range(3):
        assert text_of(list(chat.ask(f"{turn}?"))) in ('"yes"', '"no"')
