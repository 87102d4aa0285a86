"""Tools through the API, as OpenAI's own client sees them."""

from __future__ import annotations

import json

import pytest
import torch

pytest.importorskip("fastapi", reason="needs the extra serve")
openai = pytest.importorskip("openai", reason="needs the package openai")
pytest.importorskip("llguidance", reason="needs the extra grammar")

import jsonschema  # noqa: E402
from served import ask_json, running, shaken  # noqa: E402

from glassformer.models import Decoder, ModelConfig  # noqa: E402
from glassformer.processors.tokenizers import build_tokenizer  # noqa: E402
from glassformer.tasks.chats import CHAT_SPECIALS, TEMPLATES  # noqa: E402

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
CLOCK = {"type": "function", "function": {"name": "clock"}}
CALL = '<tool_call>{"name": "weather", "arguments": {"city": "Ulm"}}</tool_call>'
USER = {"role": "user", "content": "Weather?"}


class Scripted(Decoder):
    """A decoder that writes the tokens of `script` one after the other, and keeps in `seen` what it reads."""

    def hidden(self, ids, **kwargs):
        self.seen = [*self.seen, *ids[0].tolist()]
        return super().hidden(ids, **kwargs)

    def forward(self, ids, **kwargs):
        hidden = super().forward(ids, **kwargs)
        token = self.script[self.at]
        self.at += 1
        return torch.nn.functional.one_hot(torch.full(hidden.shape[:2], token), hidden.shape[-1]).float() * 50


@pytest.fixture(scope="module")
def model():
    tokenizer = build_tokenizer("bytes", [], specials=CHAT_SPECIALS)
    tokenizer.chat_template = TEMPLATES["chatml"]
    torch.manual_seed(1)
    config = ModelConfig(vocab_size=tokenizer.vocab_size, block_size=1500, n_layer=1, n_head=1, n_embd=4)
    return Scripted(config).eval(), tokenizer


@pytest.fixture(scope="module")
def plain():
    tokenizer = build_tokenizer("bytes", [], specials=CHAT_SPECIALS)
    tokenizer.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}<|im_end|>{% endfor %}"
    config = ModelConfig(vocab_size=tokenizer.vocab_size, block_size=500, n_layer=1, n_head=1, n_embd=4)
    return Decoder(config).eval(), tokenizer


@pytest.fixture(scope="module")
def url(model, plain):
    torch.manual_seed(3)
    random = shaken(Decoder(model[0].config)), model[1]
    with running({"scripted": model, "plain": plain, "random": random}) as address:
        yield address


@pytest.fixture
def client(url):
    return openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)


@pytest.fixture
def write(client, model):
    """`write(text, **fields)`: the answer of a model that writes this text."""
    decoder, tokenizer = model

    def call(text, messages=(USER,), **fields):
        decoder.script, decoder.at, decoder.seen = (*tokenizer.encode(text), tokenizer.chat.turn_ends[-1]), 0, []
        return client.chat.completions.create(model="scripted", messages=list(messages), temperature=0, **fields)

    return call


def test_a_call_is_a_field_of_the_message(write):
    (choice,) = write("Let me see. " + CALL, tools=[WEATHER]).choices
    assert choice.finish_reason == "tool_calls" and choice.message.content == "Let me see."
    (call,) = choice.message.tool_calls
    assert (call.type, call.function.name, json.loads(call.function.arguments)) == (
        "function",
        "weather",
        {"city": "Ulm"},
    )
    (choice,) = write(CALL * 2, tools=[WEATHER]).choices
    assert choice.message.content is None and len({call.id for call in choice.message.tool_calls}) == 2
    assert len(write(CALL * 2, tools=[WEATHER], parallel_tool_calls=False).choices[0].message.tool_calls) == 1


@pytest.mark.parametrize("before", ["", "Let me see <b>. "])
def test_a_stream_gives_the_same(write, before):
    pieces = list(write(before + CALL, tools=[WEATHER], stream=True))
    text = "".join(piece.choices[0].delta.content or "" for piece in pieces)
    (call,) = [call for piece in pieces for call in piece.choices[0].delta.tool_calls or ()]
    assert text.strip() == before.strip() and "<tool" not in text
    assert (call.index, call.function.name, json.loads(call.function.arguments)) == (0, "weather", {"city": "Ulm"})
    assert [piece.choices[0].finish_reason for piece in pieces if piece.choices[0].finish_reason] == ["tool_calls"]
    helper = [event for event in pieces if event.choices[0].delta.role == "assistant"]
    assert len(helper) == 1


def test_text_without_a_call_stays_text(write):
    for text in ("It is <tool> warm.", "<tool_call>nothing"):
        (choice,) = write(text, tools=[WEATHER]).choices
        assert (choice.message.content, choice.finish_reason, choice.message.tool_calls) == (text, "stop", None)
        pieces = list(write(text, tools=[WEATHER], stream=True))
        assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == text
    assert write(CALL, tools=[WEATHER], tool_choice="none").choices[0].message.content == CALL
    assert write(CALL).choices[0].message.content == CALL


def test_the_template_shows_tools_calls_and_results(write, model):
    decoder, tokenizer = model
    first = write(CALL, tools=[WEATHER, CLOCK]).choices[0].message
    new = decoder.seen[: len(decoder.seen) - len(decoder.script) + 1]  # what the cache does not have
    assert tokenizer.chat.encode([USER], tools=[WEATHER, CLOCK])[-len(new) :] == new
    assert '"name": "clock"' in tokenizer.decode(new)
    result = {"role": "tool", "tool_call_id": first.tool_calls[0].id, "content": "sunny"}
    second = write("It is sunny.", messages=[USER, first.model_dump(exclude_none=True), result], tools=[WEATHER])
    assert second.choices[0].message.content == "It is sunny."
    call = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Ulm"}}}
    turns = [USER, {"role": "assistant", "content": "", "tool_calls": [call]}, {"role": "tool", "content": "sunny"}]
    assert tokenizer.decode(tokenizer.chat.encode(turns, tools=[WEATHER]))[-60:] in tokenizer.decode(decoder.seen)


@pytest.mark.parametrize(
    ("choice", "rest", "name"),
    [
        ({"type": "function", "function": {"name": "weather"}}, '{"city": "Ulm"}}</tool_call>', "weather"),
        ("required", 'clock", "arguments": {}}</tool_call>', "clock"),
        ("required", 'weather", "arguments": {"city": "Ulm"}}</tool_call>', "weather"),
    ],
)
def test_a_call_can_be_required(write, choice, rest, name):
    """The beginning of the call is forced, and the model writes the rest of this one call."""
    for stream in (False, True):
        answer = write(rest, tools=[WEATHER, CLOCK], tool_choice=choice, stream=stream)
        call, reason = _call_of(answer, stream)
        assert reason == "tool_calls" and call.function.name == name
        assert f"{call.function.arguments}}}</tool_call>" == rest[rest.index("{") :]


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "weather"}}])
def test_the_arguments_of_a_required_call_follow_its_schema_whatever_the_model_writes(client, url, choice, strict):
    """The random model's most likely tokens are no JSON at all."""
    days = {"type": "integer", "minimum": 1, "maximum": 9}
    where = {"enum": ["Ulm", 'a "b"', "Köln 😀"]}
    schema = {"type": "object", "properties": {"city": where, "days": days}, "required": ["city", "days"]}
    schema["additionalProperties"] = False
    tool = {"type": "function", "function": {"name": "weather", "parameters": schema, "strict": strict}}
    for seed in range(20):
        fields = {"tools": [tool, CLOCK], "tool_choice": choice, "seed": seed, "stream": seed % 2 == 1}
        answer = client.chat.completions.create(model="random", messages=[USER], **fields)
        call, reason = _call_of(answer, seed % 2 == 1)
        arguments = json.loads(call.function.arguments)
        assert reason == "tool_calls" and call.function.name in ("weather", "clock")
        jsonschema.validate(arguments, schema if call.function.name == "weather" else {"const": {}})


@pytest.mark.parametrize("stream", [True, False])
def test_strict_arguments_follow_their_schema_where_the_model_decides_to_call(write, stream):
    """The other function is not strict: its arguments are any object. Text stays free."""
    strict = {**WEATHER, "function": {**WEATHER["function"], "strict": True}}
    strict["function"]["parameters"] = {**WEATHER["function"]["parameters"], "additionalProperties": False}
    fields = {"tools": [strict, CLOCK], "stream": stream, "max_tokens": 200}
    for name, arguments in (("weather", {"city": "Ulm"}), ("clock", {"zone": [1, None]})):
        text = f"<tool_call>{json.dumps({'name': name, 'arguments': arguments})}</tool_call>"
        call, reason = _call_of(write(text, **fields), stream)
        assert (reason, call.function.name, json.loads(call.function.arguments)) == ("tool_calls", name, arguments)
    call, _ = _call_of(write(CALL.replace('"city": "Ulm"}', '"town": "Ulm"} '), **fields), stream)
    jsonschema.validate(json.loads(call.function.arguments), strict["function"]["parameters"])
    assert (
        write('No {"name": "call"}.', **{**fields, "stream": False}).choices[0].message.content
        == 'No {"name": "call"}.'
    )


def test_a_call_that_is_cut_off_says_so(client):
    answer = client.chat.completions.create(
        model="random", messages=[USER], tools=[WEATHER], tool_choice="required", max_tokens=2
    )
    assert answer.choices[0].finish_reason == "length"


def _call_of(answer, stream):
    if not stream:
        (call,) = answer.choices[0].message.tool_calls
        return call, answer.choices[0].finish_reason
    pieces = [piece.choices[0] for piece in answer]
    (call,) = [call for piece in pieces for call in piece.delta.tool_calls or ()]
    return call, pieces[-1].finish_reason


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools.0.function.name"),
        ({"tools": [{"type": "retrieval"}]}, "tools.0.type"),
        ({"tools": [CLOCK, CLOCK]}, "tools"),
        ({"tools": [{**CLOCK, "function": {"name": "f", "strict": True, "parameters": {"type": "text"}}}]}, "tools"),
        ({"tools": [CLOCK], "response_format": {"type": "json_object"}}, "response_format"),
        (
            {
                "tools": [{**CLOCK, "function": {"name": "f", "parameters": {"type": "text"}}}],
                "tool_choice": "required",
            },
            "tools",
        ),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [CLOCK], "tool_choice": "some"}, "tool_choice"),
        ({"tools": [CLOCK], "tool_choice": {"type": "function", "function": {"name": "clok"}}}, "tool_choice"),
        ({"tools": [CLOCK], "parallel_tool_calls": 1}, "parallel_tool_calls"),
    ],
)
def test_wrong_tools_are_refused_by_their_field(url, fields, param):
    status, answer = ask_json(url, "/v1/chat/completions", {"model": "scripted", "messages": [USER], **fields})
    assert status == 400 and answer["error"]["param"] == param, answer


def test_a_model_without_a_form_for_tools_refuses_them(url):
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    for fields in ({"tools": [CLOCK]}, {"messages": [USER, {"role": "assistant", "tool_calls": [call]}]}):
        body = {"model": "plain", "messages": [USER], "max_tokens": 1, **fields}
        status, answer = ask_json(url, "/v1/chat/completions", body)
        assert status == 400 and "no form for tools" in answer["error"]["message"]
    body = {"model": "plain", "messages": [USER], "max_tokens": 1, "tools": [], "tool_choice": "auto"}
    assert ask_json(url, "/v1/chat/completions", body)[0] == 200
