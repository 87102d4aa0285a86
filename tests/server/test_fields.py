"""Each field of a body is applied or refused by its name, in one plain line."""

from __future__ import annotations

import pytest

pytest.importorskip("fastapi", reason="needs the extra serve")

from served import ask_json

from glassformer.server.message_schemas import INERT_IN_MESSAGES
from glassformer.server.openai_schemas import HARMLESS, INERT

BODIES = {
    "/v1/completions": {"model": "base", "prompt": "fox", "max_tokens": 1},
    "/v1/chat/completions": {"model": "chat", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1},
    "/v1/embeddings": {"model": "vectors", "input": "fox"},
    "/api/tokenize": {"model": "base", "text": "fox"},
    "/api/logits": {"model": "base", "ids": [1], "positions": [0]},
    "/api/generate": {"model": "base", "ids": [1], "max_tokens": 1},
}


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("field", ["guided_json", "max_token", "Model", "", "ü", "\ud800"])
def test_an_unknown_field_is_refused_by_its_name(url, path, field):
    status, answer = ask_json(url, path, {**BODIES[path], field: 1})
    assert status == 400
    message, param = answer["error"]["message"], answer["error"]["param"]
    assert param == {"": "''", "\ud800": "\\ud800"}.get(field, field) and message.startswith(f"{param}: ")
    assert "did you mean" in message or "known: " in message
    if field == "max_token" and "max_tokens" in BODIES[path]:
        assert "did you mean max_tokens?" in message


UNSUPPORTED = {
    "presence_penalty": [0.5, "0", True],
    "frequency_penalty": [-1],
    "suffix": ["x"],
    "store": [True, 0.5],
    "tools": [[{"type": "function", "function": {"name": "f"}}], "none"],
    "tool_choice": ["required", {"type": "function", "function": {"name": "f"}}],
    "functions": [[{"name": "f", "parameters": {}}]],
    "function_call": [{"name": "f"}],
    "modalities": [["text", "audio"], ["audio"]],
    "audio": [{"voice": "alloy", "format": "wav"}, {}],
    "reasoning_effort": ["low"],
    "verbosity": ["high"],
    "web_search_options": [{}],
}


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
@pytest.mark.parametrize("field", UNSUPPORTED)
def test_an_unsupported_field_may_have_only_values_without_effect(url, path, field):
    assert UNSUPPORTED[field]
    if field in ("tools", "tool_choice") and path == "/v1/chat/completions":
        return  # applied: test_tool_calls.py
    for value in UNSUPPORTED[field]:
        status, answer = ask_json(url, path, {**BODIES[path], field: value})
        assert status == 400 and answer["error"]["param"] == field, value
        assert answer["error"]["message"].startswith(f"{field}: is not supported; ")
    for value in (*INERT[field][0], None):
        assert ask_json(url, path, {**BODIES[path], field: value})[0] == 200, value


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions", "/v1/embeddings"])
def test_harmless_fields_are_accepted(url, path):
    harmless = HARMLESS - ({"parallel_tool_calls"} if "chat" in path else set())
    assert ask_json(url, path, {**BODIES[path], **dict.fromkeys(harmless, "whatever")})[0] == 200


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/api/tokenize"])
@pytest.mark.parametrize(
    ("message", "param"),
    [
        (
            {"tool_calls": [{"id": "1", "type": "function", "function": {"name": "weather"}}]},
            "tool_calls.0.function.arguments",
        ),
        ({"tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{}"}}]}, "tool_calls.0.type"),
        ({"content": None}, "content"),
        ({"tool_call_id": "1"}, "tool_call_id"),
        (
            {
                "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
                "role": "user",
            },
            "tool_calls",
        ),
        ({"name": "Juliet"}, "name"),
        ({"audio": {"id": "1"}}, "audio"),
        ({"prefix": True}, "prefix"),
        ({"content": [{"type": "image_url", "image_url": {"url": "x"}}]}, "content"),
        ({"content": [{"type": "text", "text": "a", "cache_control": {}}]}, "content"),
        ({"content": [{"type": "text"}]}, "content"),
        ({"content": 5}, "content"),
    ],
)
def test_a_message_may_have_only_text(url, path, message, param):
    turns = [{"role": "user", "content": "y"}, {"role": "assistant", "content": "x", **message}]
    status, answer = ask_json(url, path, {"model": "chat", "messages": turns})
    assert status == 400 and answer["error"]["param"] == f"messages.1.{param}"
    assert answer["error"]["message"].startswith(f"messages.1.{param}: ")


def test_a_message_as_openais_client_returns_it_is_accepted(url):
    empty = {"refusal": None, "annotations": [], "audio": None, "function_call": None, "tool_calls": None}
    assert empty.keys() <= {"tool_calls", *INERT_IN_MESSAGES}
    turns = [{"role": "user", "content": "y"}, {"role": "assistant", "content": "x", **empty}]
    assert ask_json(url, "/v1/chat/completions", {"model": "chat", "messages": turns, "max_tokens": 1})[0] == 200


@pytest.mark.parametrize(
    ("path", "fields", "param", "words"),
    [
        ("/v1/completions", {"n": 65}, "n", "64"),
        ("/v1/completions", {"n": 2.5}, "n", "whole number"),
        ("/v1/completions", {"max_tokens": "5"}, "max_tokens", "whole number"),
        ("/v1/completions", {"max_tokens": 10**400}, "max_tokens", "65536"),
        ("/v1/completions", {"best_of": 3}, "best_of", "use n"),
        ("/v1/completions", {"seed": 1 << 62}, "seed", "less than"),
        ("/v1/completions", {"temperature": float("nan")}, "temperature", "finite"),
        ("/v1/completions", {"temperature": "hot"}, "temperature", "number"),
        ("/v1/completions", {"top_p": 0}, "top_p", "more than 0"),
        ("/v1/completions", {"top_k": -1}, "top_k", "0 or more"),
        ("/v1/completions", {"logprobs": 21}, "logprobs", "20 or less"),
        ("/v1/completions", {"echo": "yes"}, "echo", "true or false"),
        ("/v1/completions", {"logit_bias": {"x": 1}}, "logit_bias", "token id"),
        ("/v1/completions", {"logit_bias": {" 5": 1}}, "logit_bias", "token id"),
        ("/v1/completions", {"logit_bias": {"٥": 1}}, "logit_bias", "token id"),
        ("/v1/completions", {"logit_bias": {"5": 101}}, "logit_bias", "-100 to 100"),
        ("/v1/completions", {"logit_bias": [5]}, "logit_bias", "token id"),
        ("/v1/completions", {"logit_bias": {"777": 1}}, "logit_bias", "777"),
        ("/v1/completions", {"stop": ""}, "stop", "1 to 256"),
        ("/v1/completions", {"stop": ["a"] * 17}, "stop", "16"),
        ("/v1/completions", {"stream_options": {"include_usage": True}}, "stream_options", "stream=true"),
        ("/v1/completions", {"stream": True, "stream_options": {"x": 1}}, "stream_options.x", "no such field"),
        ("/v1/completions", {"stream": True, "stream_options": {"include_obfuscation": True}},
         "stream_options.include_obfuscation", "False"),
        ("/v1/completions", {"prompt": 5}, "prompt", "token ids"),
        ("/v1/completions", {"prompt": [[]]}, "prompt", "token ids"),
        ("/v1/completions", {"prompt": [1, "a"]}, "prompt", "token ids"),
        ("/v1/completions", {"prompt": [1.0]}, "prompt", "token ids"),
        ("/v1/completions", {"prompt": ["a"] * 40, "n": 40}, None, "1,024"),
        ("/v1/completions", {"prompt": [5, 999]}, "prompt", "999"),
        ("/v1/completions", {"prompt": "a" * 500}, "prompt", "200"),
        ("/v1/completions", {"model": "vectors"}, "model", "/v1/embeddings"),
        ("/v1/completions", {"max_tokens": -1}, "max_tokens", "0 or more"),
        ("/v1/chat/completions", {"messages": []}, "messages", "1 are needed"),
        ("/v1/chat/completions", {"messages": [{"content": "a"}]}, "messages.0.role", "missing"),
        ("/v1/chat/completions", {"model": "base"}, None, "/v1/completions"),
        ("/v1/embeddings", {"model": "base"}, None, "encoder"),
        ("/v1/embeddings", {"input": " "}, None, "empty"),
        ("/v1/chat/completions", {"top_logprobs": 2}, "top_logprobs", "logprobs=true"),
        ("/v1/chat/completions", {"max_tokens": 1, "max_completion_tokens": 2}, "max_tokens", "one of them"),
        ("/v1/chat/completions", {"messages": "hi"}, "messages", "a list"),
        ("/v1/embeddings", {"input": [1, 99]}, "input", "99"),
        ("/v1/embeddings", {"input": [[1], [-1]]}, "input", "token ids"),
        ("/v1/embeddings", {"input": "x" * 51}, None, "50"),
        ("/v1/embeddings", {"dimensions": 23}, "dimensions", "24"),
        ("/v1/embeddings", {"encoding_format": "int8"}, "encoding_format", "'float' or 'base64'"),
        ("/api/generate", {"score": 1}, "score", "true or false"),
        ("/api/logits", {"positions": [1]}, "positions", "position 1"),
        ("/api/logits", {"positions": [0] * 65}, "positions", "64"),
        ("/api/logits", {"ids": [999]}, "ids", "(0 to 29)"),
        ("/api/logits", {"ids": [1] * 201}, "ids", "200"),
        ("/api/logits", {"model": "vectors"}, "model", "/v1/embeddings"),
        ("/api/generate", {"seed": 1 << 60}, "seed", "less than"),
        ("/api/tokenize", {"text": None}, None, "text or messages"),
        ("/api/tokenize", {"text": None, "messages": [{"role": "user", "content": "a"}]}, None, "template"),
    ],
)  # fmt: skip
def test_values_are_checked_and_named_in_plain_words(url, path, fields, param, words):
    status, answer = ask_json(url, path, {**BODIES[path], **fields})
    message = answer["error"]["message"]
    assert (status, answer["error"]["param"]) == (400, param), message
    assert words in message and "\n" not in message and len(message) < 600
    for jargon in ("constrained", "Input should", "union", "dictionary", "string", "Extra inputs"):
        assert jargon not in message


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [("/v1/completions", {"model": "x"}, 404), ("/api/tokenize", {"model": "x", "text": ""}, 404),
     ("/v1/nowhere", {}, 404), ("/api/vocabulary", {}, 405)],
)  # fmt: skip
def test_a_missing_path_or_model_has_an_error_of_the_same_shape(url, path, body, status):
    code, answer = ask_json(url, path, body)
    assert code == status and set(answer["error"]) == {"message", "type", "param", "code"}
    assert "model" not in body or "'x'" in answer["error"]["message"]


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "empty"),
        (b"{", "not JSON"),
        (b"null", "not a JSON object"),
        (b'"text"', "not a JSON object"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"prompt": ' + b"[" * 90_000 + b"]" * 90_000 + b"}", "nested too deeply"),
        (b'{"metadata": ' + b'{"a":' * 300 + b"1" + b"}" * 300 + b"}", None),
        (b'{"prompt": "\xff\xfe"}', "UTF-8"),
        (b'{"prompt": "\\ud800"}', "give a text"),
        (b'{"model": "\\ud800"}', "surrogate"),
        (b'{"seed": ' + b"9" * 5000 + b"}", "digits"),
        (b'{"temperature": 1e400}', "finite"),
        (b'{"temperature": NaN, "prompt": "a"}', "finite"),
        (b'{"prompt": "a", "prompt": 5}', "prompt: give a text"),
    ],
)
def test_an_unreadable_body_gets_one_line(url, raw, words):
    status, answer = ask_json(url, "/v1/completions", raw)
    if words is None:
        assert status == 200
    else:
        assert status == 400 and words in answer["error"]["message"] and "\n" not in answer["error"]["message"]


@pytest.mark.parametrize("path", BODIES)
def test_another_content_type_is_refused(url, path):
    """Another web page may send text/plain without a preflight request."""
    status, answer = ask_json(url, path, BODIES[path], **{"Content-Type": "text/plain"})
    assert status == 400 and "Content-Type: application/json" in answer["error"]["message"]
