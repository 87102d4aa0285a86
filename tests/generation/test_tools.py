"""Tools: what they compute, the form of calls in a template, and the loop around a model."""

from __future__ import annotations

import datetime
import json
import re
from fractions import Fraction
from typing import Annotated, Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

from glassformer.errors import UsageError
from glassformer.generation import Chat, Grammar, Sampling
from glassformer.generation.tools import (
    Call,
    ChatMemory,
    Notebook,
    Tool,
    Toolbox,
    ToolForm,
    ToolUse,
    calculate,
    toolbox,
)
from glassformer.models import Decoder, ModelConfig
from glassformer.processors.tokenizers import build_tokenizer
from glassformer.tasks.chats import CHAT_SPECIALS, TEMPLATES

# ---- the calculator ----

EXPRESSIONS = st.recursive(
    st.integers(0, 999).map(str) | st.decimals(0, 99, places=2).map(str),
    lambda inner: st.tuples(inner, st.sampled_from("+-*"), inner).map(lambda parts: f"({' '.join(parts)})"),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(EXPRESSIONS)
def test_the_calculator_is_exact(expression):
    """Beside fractions: every number of the expression is replaced by one, and Python computes."""
    import re

    exact = eval(re.sub(r"[\d.]+", lambda found: f"Fraction('{found[0]}')", expression), {"Fraction": Fraction})
    if exact.denominator == 1:
        assert calculate(expression) == str(exact)
    else:
        assert Fraction(calculate(expression)) == pytest.approx(exact, rel=1e-14)


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("999999999999 + 1", "1000000000000"),
        ("0.1 + 0.2", "0.3"),
        ("1 / 3", "0.333333333333333"),
        ("2^10 × 3 ÷ 2 − 1", "1535"),
        ("-2**2", "-4"),
        ("7 // -2", "-4"),
        ("sqrt(10**40)", "100000000000000000000"),
        ("round(2 / 3, 2)", "0.67"),
        ("max(1, 5, 3)", "5"),
    ],
)
def test_values(expression, value):
    assert calculate(expression) == value


@pytest.mark.parametrize(
    "expression",
    [
        "", "1 +", "two", "__import__('os')", "(1).real", "[1][0]", "1 if 1 else 2", "lambda: 1", "True", "1j", "'a'*9",
        "1/0", "9**9**9", "10**100000", "1e99999999", "sqrt(-1)", "2**0.5", "1+" * 300 + "1", "(" * 150 + "1", "max()",
    ],
)  # fmt: skip
def test_what_is_no_arithmetic_or_too_large_is_refused(expression):
    with pytest.raises(UsageError) as error:
        calculate(expression)
    assert "\n" not in str(error.value)


# ---- functions as tools ----


def weather(
    city: str, days: Annotated[int, Field(ge=1, le=9, description="how many")] = 1, unit: Literal["C", "F"] = "C"
) -> dict:
    """The weather of the next days."""
    if city == "Atlantis":
        raise KeyError(city)
    return {"city": city, "days": days, "unit": unit}


def test_the_schema_is_that_of_the_signature():
    function = Tool.of(weather).schema["function"]
    assert (function["name"], function["description"]) == ("weather", "The weather of the next days.")
    assert function["parameters"]["required"] == ["city"]
    days = function["parameters"]["properties"]["days"]
    assert (days["type"], days["maximum"], days["description"]) == ("integer", 9, "how many")


@pytest.mark.parametrize(
    ("name", "arguments", "result"),
    [
        ("weather", {"city": "Ulm", "days": 3}, '{"city": "Ulm", "days": 3, "unit": "C"}'),
        ("weather", {"city": "Ulm", "days": 30}, "error: days"),
        ("weather", {"city": "Ulm", "moon": 1}, "error: moon"),
        ("weather", {}, "error: city"),
        ("weather", "city=Ulm", "error: the arguments are no JSON object"),
        ("weather", {"city": "Atlantis"}, "error: KeyError: 'Atlantis'"),
        ("wether", {"city": "Ulm"}, "error: there is no tool 'wether'; did you mean weather"),
        ("long", {}, "more characters are left out"),
        ("calculator", {"expression": "1/0"}, "error: division by zero"),
    ],
)
def test_results_and_errors_are_texts(name, arguments, result):
    def long() -> str:
        return "x" * 5000

    box = toolbox(["calculator"])
    box.add(weather)
    box.add(long)
    use = box.use(name, arguments)
    assert result in use.result and len(use.result) < 2100


def test_tools_that_cannot_be_called_are_refused():
    def positional(x, /):
        return x

    for wrong in (positional, lambda x: x):
        with pytest.raises(UsageError, match="must be a named function"):
            Tool.of(wrong)
    with pytest.raises(UsageError, match="two tools are called weather"):
        Toolbox.of([weather, weather])
    for name, what in (("calculater", "did you mean calculator"), ("no_such:thing", "no_such: no module")):
        with pytest.raises(UsageError, match=what):
            toolbox([name])


def test_a_function_of_the_current_folder_is_a_tool(tmp_path, monkeypatch):
    (tmp_path / "my_own_tools.py").write_text('def double(n: int) -> int:\n    """Twice n."""\n    return 2 * n\n')
    monkeypatch.chdir(tmp_path)
    assert toolbox(["my_own_tools:double"]).use("double", {"n": 21}).result == "42"
    with pytest.raises(UsageError, match="no function 'triple'"):
        toolbox(["my_own_tools:triple"])


def test_the_clock_shows_today():
    assert toolbox(["clock"]).use("clock", {}).result[:10] == str(datetime.date.today())


# ---- notebook and memory ----


def test_the_notebook_gives_back_what_was_written():
    book = Notebook()
    assert book.notebook_write("buy milk") == "page 1"
    book.keep_scratchpads("2+2?", "<scratchpad>two and two</scratchpad>4")
    assert book.notebook_read() == "1: buy milk\n2: two and two" and book.notebook_read(2) == "two and two"
    with pytest.raises(UsageError, match="there is no page 3"):
        book.notebook_read(3)


def test_memories_outlast_the_chat_and_can_be_deleted(tmp_path):
    memory = ChatMemory(tmp_path / "m")
    memory.add("My cat is called Minka.", "<scratchpad>a cat</scratchpad>A nice name.")
    memory.add("What is the capital of France?", "Paris.")
    again = ChatMemory(tmp_path / "m")
    assert [m.answer for m in again.all()] == ["A nice name.", "Paris."]
    assert "Minka" in again.recall('the cats" OR *') and "Paris" not in again.recall("cat")
    assert again.recall("zebra") == "nothing was found" == again.recall('"')
    with pytest.raises(UsageError, match="there is no memory 7"):
        again.delete(7)
    again.delete(1)
    assert [m.number for m in ChatMemory(tmp_path / "m").all()] == [2] and again.recall("cat") == "nothing was found"
    assert b"minka" not in again.path.read_bytes().lower(), "what was deleted is still in the file"
    assert again.clear() == 1 and not again.all()


def test_a_file_that_is_no_memory_is_refused(tmp_path):
    (tmp_path / "memory.sqlite").write_text("this is no database, but a text that somebody wrote " * 9)
    with pytest.raises(UsageError, match="another folder"):
        ChatMemory(tmp_path)
    with pytest.raises(UsageError, match="no folder"):
        ChatMemory(tmp_path / "memory.sqlite")


# ---- forms ----

LLAMA = (
    "{% if tools %}{% for t in tools %}{{ t | tojson }}{% endfor %}{% endif %}{% for m in messages %}[{{ m.role }}]"
    '{% if m.tool_calls %}{% set f = m.tool_calls[0].function %}{{ \'{"name": "\' + f.name + \'", "parameters": \' }}'
    "{{ f.arguments | tojson }}{{ '}' }}{% else %}{{ m.content }}{% endif %}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
MISTRAL = (
    "{% if tools %}[AVAILABLE_TOOLS] {{ tools | tojson }}[/AVAILABLE_TOOLS]{% endif %}{% for m in messages %}"
    "{% if m.role == 'user' %}[INST] {{ m.content }}[/INST]{% elif m.tool_calls %}[TOOL_CALLS] ["
    "{% for c in m.tool_calls %}{{ c.function | tojson }}{% if not loop.last %}, {% endif %}{% endfor %}]<|im_end|>"
    "{% else %}{{ m.content }}<|im_end|>{% endif %}{% endfor %}"
)


def made(template):
    tokenizer = build_tokenizer("bytes", [], specials=CHAT_SPECIALS)
    tokenizer.chat_template = template
    return tokenizer


@pytest.mark.parametrize(
    ("template", "mark", "key"),
    [
        (TEMPLATES["chatml"], "<tool_call>", "arguments"),
        (TEMPLATES["plain"], "<tool_call>", "arguments"),
        (LLAMA, "", "parameters"),
        (MISTRAL, "[TOOL_CALLS]", "arguments"),
    ],
)
def test_a_call_that_the_template_writes_is_read_back(template, mark, key):
    tokenizer = made(template)
    form = ToolForm.of(tokenizer)
    assert (form.mark, form.key) == (mark, key)
    user = {"role": "user", "content": "Hi"}
    function = {"name": "add", "arguments": {"text": "} </tool_call> {", "n": [1, {"a": None}]}}
    turn = {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": function}]}
    before = tokenizer.chat.render([user])
    written = tokenizer.chat.render([user, turn], add_generation_prompt=False)[len(before) :]
    assert form.read(written) == ("", [Call(**function)])
    as_text = {**turn, "tool_calls": [{"function": {**function, "arguments": json.dumps(function["arguments"])}}]}
    assert tokenizer.chat.encode([user, as_text]) == tokenizer.chat.encode([user, turn])  # OpenAI's form of arguments


def test_several_calls_damaged_calls_and_none():
    form = ToolForm.of(made(TEMPLATES["chatml"]))
    one = '<tool_call>{"name": "a", "arguments": {"x": 1}}</tool_call>'
    assert form.read(f"So: {one}\n{one}") == ("So:", [Call("a", {"x": 1})] * 2)
    assert form.read('<tool_call>{"name": "a", "arguments": {"x": 1</tool_call>') == ("", [Call("a", '{"x": 1')])
    assert form.read("<tool_call>nothing")[1] == [Call("", "nothing")]
    assert form.read("no {call} here") == ("no {call} here", [])
    assert ToolForm.of(made(LLAMA)).read("{no call}") == ("{no call}", [])


CITY = {
    "type": "object",
    "properties": {"city": {"enum": ["Ulm"]}},
    "required": ["city"],
    "additionalProperties": False,
}
MARKS = (*CHAT_SPECIALS, "<tool_call>", "</tool_call>")


@pytest.mark.parametrize(
    ("template", "specials", "begin", "end"),
    [
        (TEMPLATES["chatml"], CHAT_SPECIALS, "<tool_call>", "</tool_call>"),
        (TEMPLATES["plain"], CHAT_SPECIALS, "<tool_call>\n", "</tool_call>\n"),
        (TEMPLATES["chatml"], MARKS, "<tool_call>", "</tool_call>"),  # the marks are special tokens
        (LLAMA, CHAT_SPECIALS, "", ""),
        (MISTRAL, CHAT_SPECIALS, "[TOOL_CALLS] [", "]"),
    ],
)
def test_text_is_free_and_calls_follow_their_schemas(template, specials, begin, end):
    """What a grammar of text and calls lets through, token by token."""
    pytest.importorskip("llguidance", reason="needs the extra grammar")
    tokenizer = build_tokenizer("bytes", [], specials=specials)
    tokenizer.chat_template = template
    form = ToolForm.of(tokenizer)
    grammar = Grammar.may_call(tokenizer, {"weather": CITY, "clock": None}, form)
    ends = tokenizer.chat.turn_ends

    def passes(text):
        """Whether a text may be written and ended; where it may not go on."""
        state, known = grammar.start(ends, tokenizer.vocab_size), tokenizer.special_tokens
        parts = re.split("(" + "|".join(map(re.escape, known)) + ")", text)
        ids = tokenizer.encode_parts([known.get(part, part) for part in parts if part])
        for n, i in enumerate(ids):
            if not state.allowed_V[i]:
                return tokenizer.decode(ids[:n])
            state.accept(i)
        return bool(state.allowed_V[list(ends)].all())

    def call(name, **arguments):
        return json.dumps({"name": name, form.key: arguments})

    right = call("weather", city="Ulm")
    assert all(passes(text) is True for text in ("", "So.", "a < b {c} [tool", begin + right + end, begin + right))
    assert form.mark == "" or passes(f"So: {begin}{right}{end}{begin}{call('clock')}{end}") is True
    assert passes(begin + call("weather", city="Rom")) == begin + right.partition("Ulm")[0]
    assert passes(begin + call("clok")) == begin + '{"name": "clo'
    assert passes(begin + right + end + '{"name": "x') == begin + right + end + '{"name": "'
    assert form.mark == "" or passes(begin + "no") == begin
    never = [i for t, i in tokenizer.special_tokens.items() if i not in ends and "tool" not in t]
    assert never and not grammar.start(ends, tokenizer.vocab_size).allowed_V[never].any()


def test_a_template_without_tools_is_refused_in_one_line():
    bare = "{% for m in messages %}{{ m.role }}: {{ m.content }}<|im_end|>{% endfor %}"
    shown = "{{ tools | tojson }}" + bare  # it shows tools and never a call
    for template in (bare, shown, None):
        with pytest.raises(UsageError) as error:
            ToolForm.of(made(template))
        assert "\n" not in str(error.value) and "template" in str(error.value)


# ---- the loop ----


def scripted(answers, tools=(), template="chatml", block_size=1500, **options):
    """A chat whose model writes these answers, one a request, each ended by the end of the turn."""
    tokenizer = made(TEMPLATES[template])
    config = ModelConfig(vocab_size=tokenizer.vocab_size, block_size=block_size, n_layer=1, n_head=1, n_embd=4)
    torch.manual_seed(1)
    chat = Chat(Decoder(config).eval(), tokenizer, tools=tools, sampling=Sampling(temperature=0), **options)
    end = tokenizer.special_tokens["<|im_end|>"]
    stream = iter([i for answer in answers for i in (*tokenizer.encode(answer), end)])

    def logits(hidden):
        return torch.nn.functional.one_hot(torch.tensor([[next(stream)]]), tokenizer.vocab_size).float() * 50

    chat.model.logits = logits
    return chat


def call(name, **arguments):
    return f"<tool_call>{json.dumps({'name': name, 'arguments': arguments})}</tool_call>"


def test_a_call_is_run_and_its_result_is_read_before_the_model_goes_on():
    chat = scripted(["Let me see. " + call("calculator", expression="12*34"), "It is 408."], toolbox(["calculator"]))
    found = list(chat.ask("What is 12*34?"))
    (use,) = [item for item in found if isinstance(item, ToolUse)]
    assert use == ToolUse("calculator", {"expression": "12*34"}, "408")
    shown = "".join(item.text for item in found if not isinstance(item, ToolUse))
    assert shown == "Let me see. It is 408."
    assert [message["role"] for message in chat.messages] == ["user", "assistant", "tool", "assistant"]
    ids = chat.tokenizer.chat.encode(chat.messages[:-1], tools=chat.toolbox.schemas)
    (length,) = chat.engine.cache.lengths
    assert chat.engine.cache.tokens[0, :length].tolist()[: len(ids)] == ids  # the model has read the result


def test_calls_without_end_are_bounded():
    chat = scripted([call("clock")] * 20, toolbox(["clock"]))
    uses = [item for item in chat.ask("What time is it?") if isinstance(item, ToolUse)]
    assert len(uses) == 8 and chat.messages[-1]["role"] == "assistant"


def test_an_error_is_read_by_the_model():
    chat = scripted([call("calculator", expression="1/0"), call("nothing"), "No."], toolbox(["calculator"]))
    results = [item.result for item in chat.ask("1/0?") if isinstance(item, ToolUse)]
    assert [result.startswith("error: ") for result in results] == [True, True]
    assert chat.messages[-1] == {"role": "assistant", "content": "No."}


def test_a_result_that_does_not_fit_is_an_error():
    def long() -> str:
        """Much."""
        return "x" * 1900

    chat = scripted([call("long"), "Too long."], [long])
    list(chat.ask("?"))
    assert (
        chat.messages[2]["content"] == "error: the result is too long" and chat.messages[-1]["content"] == "Too long."
    )


def test_what_leaves_the_window_can_be_read_back():
    answers = ["A" * 200, "B" * 200, call("notebook_read", page=1), "It was A."]
    chat = scripted(answers, toolbox(["notebook"]), block_size=1600)
    for question in ("first " * 60, "second " * 60, "What came first?"):
        found = list(chat.ask(question))
    (use,) = [item for item in found if isinstance(item, ToolUse)]
    assert use.result.startswith("user: first first") and chat.dropped >= 2


def test_turns_are_remembered(tmp_path):
    memory = ChatMemory(tmp_path)
    list(scripted(["Noted."], toolbox([], memory)).ask("My name is Ada."))
    chat = scripted([call("recall", query="name"), "Ada."], toolbox([], memory))
    (use,) = [item for item in chat.ask("Who am I?") if isinstance(item, ToolUse)]
    assert "My name is Ada." in use.result and [m.answer for m in memory.all()] == ["Noted.", "Ada."]


def test_chats_with_calls_are_saved_and_loaded(tmp_path):
    chat = scripted([call("clock"), "Late."], toolbox(["clock"]))
    list(chat.ask("When?"))
    chat.save(tmp_path / "chat.json")
    other = scripted([], toolbox(["clock"]))
    other.load(tmp_path / "chat.json")
    assert other.messages == chat.messages
