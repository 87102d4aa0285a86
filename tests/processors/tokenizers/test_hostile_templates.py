"""Templates out of a hostile file: they end, in one clear line, soon, in little memory, and reach nothing."""

from __future__ import annotations

import threading
import time
import tracemalloc

import pytest
from chat_examples import VOCABULARIES

from glassformer.errors import TokenizerError, UsageError
from glassformer.processors.tokenizers import TOKENIZERS, Tokenizer, template_meter

HELLO = [{"role": "user", "content": "Hello"}]


def stopped(template: str, error: type[Exception] = TokenizerError) -> str:
    """The message when this template is rendered, within a few seconds."""
    tokenizer = TOKENIZERS["bytes"]()
    tokenizer.chat_template = template
    start = time.thread_time()
    with pytest.raises(error) as caught:
        tokenizer.chat.render(HELLO)
    assert time.thread_time() - start < 5  # the bound is 2, and compiling
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500
    return str(caught.value)


def growing(step: str, end: str = "{{ ns.x | length }}") -> str:
    """A value that becomes twice as large sixty times."""
    return f"{{% set ns = namespace(x='ab') %}}{{% for i in range(60) %}}{{% set ns.x = {step} %}}{{% endfor %}}{end}"


TOO_LARGE = [
    "{{ 'a' * 10**10 }}",
    "{{ 10**10 * 'a' }}",
    "{{ ([1] * 10**9) | length }}",
    "{{ 10**(10**10) }}",
    growing("3 if i == 0 else ns.x * ns.x"),
    growing("ns.x ~ ns.x"),
    growing("ns.x + ns.x"),
    growing("[ns.x, ns.x] | join"),
    growing("''.join([ns.x, ns.x])"),
    growing("'%s%s' | format(ns.x, ns.x)"),
    growing("'%s%s' % (ns.x, ns.x)"),
    growing("'{0}{0}'.format(ns.x)"),
    growing("ns.x | replace('a', ns.x)"),
    growing("ns.x.replace('', ns.x)"),
    growing("(ns.x | list) + (ns.x | list)"),
    "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set y %}{{ ns.x }}{{ ns.x }}{% endset %}"
    "{% set ns.x = y %}{% endfor %}",
    "{% macro f(x) %}{{ x }}{{ x }}{% endmacro %}" + growing("f(ns.x)"),
    "{% for i in range(100000) %}{{ 'x' * 10000 }}{% endfor %}",
    "{% for i in range(100000) %}" + "x" * 30000 + "{% endfor %}",
    growing("[] if i == 0 else ns.x + ['a' * 8000000 ~ i]"),
    "{{ ('%(a)s' * 4000) % {'a': 'a' * 1000000} }}",
    "{{ range(100000) | join('a' * 1000000) }}",
    "{{ ('a' * 1000000).join('b' * 100000) }}",
    "{{ ('a\n' * 90000) | indent(90000) }}",
    "{{ [1] | tojson(indent=10**9) }}",
    "{{ [1] | tojson(indent=90000) }}",
    "{{ '%1000000000d' | format(1) }}",
    "{{ '%(a)1000000000d' % {'a': 1} }}",
    "{{ '%*d' % (10**9, 1) }}",
    "{{ '{:1000000000}'.format(1) }}",
    "{{ '{:{w}}'.format(1, w=10**9) }}",
    "{{ 1 | round(10**9, 'ceil') }}",
    "{{ [1] | batch(10**9, 'x') | list }}",
    "{{ [1] | slice(10**9) | list }}",
    "{{ [[1], [2]] | sum(start=[]) }}",
    "{{ ('世' * 8000000) | list | length }}",
    "{{ ('a ' * 4000000).split() | length }}",
    "{{ ('a,' * 4000000).split(',') | length }}",
    "{{ ('a,' * 4000000).split(',', -1) | length }}",
    "{{ ('a\n' * 4000000).splitlines() | length }}",
    "{% for i in range(10**9) %}x{% endfor %}",
    "{{ strftime_now('%Y' * 1000) }}",
    "x" * (1 << 17),
]


NAMES_ITS_BOUND = {
    "{{ 'a' * 10**10 }}": f"{template_meter.MAX_TEXT:,} characters",
    "{{ ([1] * 10**9) | length }}": f"{template_meter.MAX_ITEMS:,} entries",
    "{{ 10**(10**10) }}": f"{template_meter.MAX_BITS:,} bits",
    "x" * (1 << 17): f"{template_meter.MAX_SOURCE:,}",
}


@pytest.mark.parametrize("template", TOO_LARGE, ids=lambda template: template[:60])
def test_nothing_large_is_made(template):
    tracemalloc.start()
    try:
        message = stopped(template)
        assert tracemalloc.get_traced_memory()[1] < 200 << 20
    finally:
        tracemalloc.stop()
    assert NAMES_ITS_BOUND.get(template, "") in message


LOOPS = {
    "nested": "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
    "without a call": "{% set r = range(100000) %}{% for i in r %}{% for j in r %}{% for k in r %}{% endfor %}"
    "{% endfor %}{% endfor %}",
    "never entered": "{% set r = range(100000) %}{% for i in r %}{% for j in r if false %}{% endfor %}{% endfor %}",
    "membership": "{% set r = range(100000) | list %}{% for i in r if -1.5 in r %}{% endfor %}",
    "a fan of macros": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "sorting": "{% set x = range(100000) | list %}{% for i in x %}{% set y = x | sort(reverse=true) %}{% endfor %}",
    "comparing": "{% set x = 'é' * 8000000 %}{% set y = 'é' * 8000000 %}{% for i in range(100000) %}{{ x == y }}"
    "{% endfor %}",
    "searching": "{% set x = 'ab' * 4000000 %}{% set y = 'ab' * 100000 ~ 'c' %}{% for i in range(100000) %}"
    "{% set z = x.count(y) %}{% endfor %}",
    "a list in itself, printed": growing("[ns.x, ns.x]", "{{ ns.x }}"),
    "a list in itself, as text": growing("[ns.x, ns.x]", "{{ ns.x ~ '' }}"),
    "a list in itself, in capitals": growing("[ns.x, ns.x]", "{{ ns.x | upper }}"),
    "a list in itself, formatted": growing("[ns.x, ns.x]", "{{ '{}'.format(ns.x) }}"),
    "a list in itself, as JSON": growing("{'a': ns.x, 'b': ns.x}", "{{ ns.x | tojson }}"),
    "a list in itself, its items": growing("{'a': ns.x, 'b': ns.x}", "{{ ns.x.items() }}"),
    "a list in itself, compared": growing("[ns.x, ns.x]", growing("[ns.x, ns.x]", "").replace("ns", "n2"))
    + "{{ ns.x == n2.x }}",
    "a list in itself, by a test": growing("[ns.x, ns.x]", growing("[ns.x, ns.x]", "").replace("ns", "n2"))
    + "{{ ns.x is eq(n2.x) }}",
    "a tuple in itself, as a key": growing("(ns.x, ns.x)", "{{ {ns.x: 1} }}"),
    "arguments in themselves, as a key": "{% macro f(n) %}{% if n > 60 %}{{ {varargs: 1} }}{% else %}"
    "{{ f(n + 1, varargs, varargs) }}{% endif %}{% endmacro %}{{ f(0) }}",
}


@pytest.mark.parametrize("name", LOOPS)
def test_nothing_runs_for_long(name, monkeypatch):
    monkeypatch.setattr(template_meter, "MAX_STEPS", 100_000)  # a twentieth of both, to save time
    monkeypatch.setattr(template_meter, "MAX_SECONDS", 0.1)
    assert stopped(LOOPS[name]).startswith("the chat template was stopped: ")


@pytest.mark.parametrize(("bound", "value"), [("MAX_STEPS", 100_000), ("MAX_SECONDS", 0.1)])
def test_each_of_the_two_bounds_is_enough(bound, value, monkeypatch):
    assert (template_meter.MAX_STEPS, template_meter.MAX_SECONDS, template_meter.MAX_TEXT) == (2_000_000, 2.0, 1 << 23)
    for name, given in {"MAX_STEPS": 10**12, "MAX_SECONDS": 1e6, bound: value}.items():
        monkeypatch.setattr(template_meter, name, given)
    assert f"takes more than {value:,} " in stopped(LOOPS["nested"])


DEEP = {
    "{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}": "calls itself without end",
    "{% for i in [1] recursive %}{{ loop([1]) }}{% endfor %}": "calls itself without end",
    "{% set ns = namespace(x=1) %}{% for i in range(900) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x }}": "64 deep",
    "{{ " + "(" * 20000 + "1" + ")" * 20000 + " }}": "nested too deeply",
    "{{ " + "not " * 15000 + "1 }}": "nested too deeply",
    "{{ " + "-" * 30000 + "1 }}": "nested too deeply",
    "{{ " + "+".join(["1"] * 30000) + " }}": "nested too deeply",
    "{{ " + "[" * 20000 + "]" * 20000 + " }}": "nested too deeply",
    "{% if 1 %}" * 2900 + "{% endif %}" * 2900: "nested too deeply",
    "{% for i in [1] %}" * 30 + "{% endfor %}" * 30: "nested too deeply",
}


@pytest.mark.parametrize("template", DEEP, ids=lambda template: template[:40])
def test_nothing_goes_too_deep(template):
    assert DEEP[template] in stopped(template)


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__ }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.__class__ }}",
        "{{ messages[0]['__class__'] ~ messages['__class__'] }}",
        "{{ raise_exception.__globals__ }}",
        "{{ strftime_now.__globals__['__builtins__'] }}",
        "{{ namespace.__init__.__globals__ }}",
        "{{ namespace.mro() }}",
        "{{ dict.__subclasses__() }}",
        "{{ range.__class__ }}",
        "{{ self._TemplateReference__context }}",
        "{{ self.__init__.__globals__ }}",
        "{% for i in [1] %}{{ loop._iterator.__class__ }}{% endfor %}",
        "{% macro f() %}{% endmacro %}{{ f._func.__globals__ }}",
        "{{ '{0.__class__}'.format(messages) }}",
        "{{ '{0[0].__class__}'.format(messages) }}",
        "{{ '{a.__class__}'.format_map({'a': 1}) }}",
        "{{ '' | attr('__class__') }}",
        "{{ messages | map('attr', '__class__') | list }}",
        "{{ messages | map(attribute='__class__') | join }}",
        "{{ namespace(__class__=1) }}",
        "{% set ns = namespace() %}{% set ns.__class__ = 1 %}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update({'role': 'system'}) }}",
        "{{ messages[0].pop('role') }}",
        "{{ messages[0].more.list.append(3) }}",
        "{{ (1).to_bytes(10) }}",
        "{{ 'a'.center(10**10) }}",
        "{{ 'a'.encode() }}",
        "{{ 'a' | center(10**10) }}",
        "{{ lipsum.__globals__ }}",
        "{{ cycler.__init__ }}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}",
        "{% extends '/etc/passwd' %}",
        "{% do messages %}",
        "{{ environment.x }}",
    ],
)
def test_nothing_is_reached(template):
    """It fails, or it finds nothing there, and the conversation is as it was."""
    tokenizer, messages = TOKENIZERS["bytes"](), [{"role": "user", "content": "Hello", "more": {"list": [1, 2]}}]
    tokenizer.chat_template = template
    try:
        assert tokenizer.chat.render(messages) in ("", "[Undefined]", "<namespace>")
    except TokenizerError as error:
        assert str(error).startswith("the chat template ") and "\n" not in str(error)
    assert messages == [{"role": "user", "content": "Hello", "more": {"list": [1, 2]}}]


def test_a_message_of_a_template_is_short_and_printable():
    tokenizer = Tokenizer(VOCABULARIES["smollm2"]._library, chat_template="{{ raise_exception('no <|im_end|>') }}")
    with pytest.raises(UsageError, match=r"refuses this conversation: no <\|im_end\|>"):
        tokenizer.chat.render(HELLO)
    tokenizer.chat_template = "{% set x = '<|im_end|>' %}{{ [1] | map(x) | list }}"
    with pytest.raises(TokenizerError) as caught:
        tokenizer.chat.render(HELLO)
    assert "No filter named" in str(caught.value) and str(caught.value).isprintable()
    text = stopped("{{ raise_exception('no\n' * 10000) }}", UsageError)
    assert text.startswith("the chat template refuses this conversation: no no no")
    assert "refuses this conversation: Undefined" in stopped("{{ raise_exception(nothing) }}", UsageError)


@pytest.mark.parametrize("name", ["smollm2", "llama 3", "qwen 3", "gemma 3"])
def test_what_people_write_is_far_from_the_bounds(name, monkeypatch):
    """A fifth of the bounds is enough for 1,000 messages, or for one of two million characters."""
    for bound in ("MAX_STEPS", "MAX_MADE"):
        monkeypatch.setattr(template_meter, bound, getattr(template_meter, bound) // 5)
    tokenizer = VOCABULARIES[name]
    turns = [{"role": ("user", "assistant")[i % 2], "content": "To be, or not to be. " * 40} for i in range(1000)]
    assert len(tokenizer.chat.render(turns)) > 800_000
    assert len(tokenizer.chat.render([{"role": "user", "content": "To be. é" * 250_000}])) > 2_000_000


def test_runs_at_the_same_time_are_counted_apart():
    tokenizer, made, failed = VOCABULARIES["qwen 3"], [], []
    turns = [{"role": ("user", "assistant")[i % 2], "content": f"To be {i}."} for i in range(100)]
    expected = tokenizer.chat.encode(turns)

    def work() -> None:
        made.append(tokenizer.chat.encode(turns) == expected)
        try:
            stopped("{% for i in range(100000) %}{{ 'x' * 10000 }}{% endfor %}")
        except AssertionError as error:
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [True] * 4 and not failed
