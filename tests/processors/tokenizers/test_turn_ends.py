"""The token that ends a turn is found whatever a template insists on, and contents reach it in the form it takes."""

from __future__ import annotations

import pytest
from chat_examples import byte_level, theirs

from glassformer.errors import UsageError
from glassformer.processors.tokenizers import TOKENIZERS, Tokenizer

TURNS = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>\n{% endfor %}"
SPECIALS = ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|close|>", "<|endoftext|>"]
PARTS = (  # as SmolVLM and Idefics have it
    "{% for m in messages %}<|{{ m.role }}|>{% for part in m['content'] %}{% if part['type'] == 'text' %}"
    "{{ part['text'] }}{% elif part['type'] == 'image' %}<image>{% endif %}{% endfor %}<|end|>\n{% endfor %}"
)


def refusing(condition: str, rest: str = TURNS) -> str:
    return "{% if " + condition + " %}{{ raise_exception('not like this') }}{% endif %}" + rest


TEMPLATES = {
    "plain": TURNS,
    "a system message first": refusing("messages[0].role != 'system'"),
    "no system message (Gemma 2)": refusing("messages[0].role == 'system'"),
    "alternation (Mistral)": refusing("messages[1] and messages[1].role == messages[0].role"),
    "a question last": refusing("messages[-1].role != 'user'"),
    "both": refusing("messages[0].role != 'system' or messages[-1].role != 'user'"),
    "the last turn open": "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}"
    "{% if not loop.last %}<|end|>\n{% endif %}{% endfor %}",
    "parts": PARTS,
    "parts and a system message first": refusing("messages[0].role != 'system'", PARTS),
    "a date (Llama 3.2)": "{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}"
    "{% endif %}{{ date_string }}" + TURNS,
}


def tokenizer_with(template: str) -> Tokenizer:
    made = TOKENIZERS["bpe"](["hello there, kind people"], vocab_size=275, specials=SPECIALS)
    return Tokenizer(made._library, end_of_text="<|endoftext|>", chat_template=template)


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_end_of_a_turn_is_found(name):
    tokenizer = tokenizer_with(TEMPLATES[name])
    ends = {tokenizer.special_tokens["<|end|>"], tokenizer.end_of_text}
    assert set(tokenizer.chat.turn_ends) == ends


def test_ends_that_the_folder_names_count_in_chats_too():
    tokenizer = tokenizer_with("{% for m in messages %}{{ m.content }}\n{% endfor %}")
    assert tokenizer.chat.turn_ends == (tokenizer.end_of_text,)
    tokenizer = tokenizer_with(TURNS)
    tokenizer.further_ends = frozenset({tokenizer.special_tokens["<|close|>"]})
    ends = {tokenizer.special_tokens[t] for t in ("<|end|>", "<|close|>", "<|endoftext|>")}
    assert set(tokenizer.chat.turn_ends) == ends


@pytest.mark.parametrize("name", ["parts", "plain"])
def test_contents_are_given_in_the_form_that_the_template_takes(name):
    """A text and the same text in one part are one message; ids are those of transformers for the form that fits."""
    tokenizer = tokenizer_with(TEMPLATES[name])
    texts = [("user", "hello there"), ("assistant", "kind"), ("user", "people")]
    as_texts = [{"role": role, "content": text} for role, text in texts]
    as_parts = [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in texts]
    ids = tokenizer.chat.encode(as_texts)
    assert tokenizer.chat.encode(as_parts) == ids
    assert "hello there" in tokenizer.chat.render(as_texts) and "people" in tokenizer.chat.render(as_parts)
    fitting = as_parts if name == "parts" else as_texts
    assert theirs(tokenizer).apply_chat_template(fitting, add_generation_prompt=True, return_dict=False) == ids
    several = [{"role": "user", "content": [{"type": "text", "text": t} for t in ("hello ", "there")]}]
    assert tokenizer.chat.encode(several) == tokenizer.chat.encode([{"role": "user", "content": "hello there"}])


def test_a_template_that_takes_both_is_given_what_was_given():
    tokenizer = byte_level("gemma 3")
    parts = [{"role": "user", "content": [{"type": "text", "text": " a "}, {"type": "text", "text": " b "}]}]
    assert "ab" in tokenizer.chat.render(parts)  # it trims each part
    assert "a  b" in tokenizer.chat.render([{"role": "user", "content": " a  b "}])


@pytest.mark.parametrize("part", [{"type": "image", "image": "x"}, {"type": "text"}, "hello", {"text": "hello"}])
def test_parts_that_are_no_text_are_refused(part):
    tokenizer = tokenizer_with(PARTS)
    with pytest.raises(UsageError, match=r"messages\[0\]: a part.*only text is read: give"):
        tokenizer.chat.encode([{"role": "user", "content": [part]}])


def test_a_template_that_never_ends_is_tried_once(monkeypatch):
    from glassformer.processors.tokenizers.template_sandbox import Program

    runs = []
    run = Program.run
    monkeypatch.setattr(Program, "run", lambda self, variables: runs.append(1) or run(self, variables))
    loops = "{% for i in range(10 ** 5) %}" * 3 + "x" + "{% endfor %}" * 3
    tokenizer = tokenizer_with(loops)
    assert tokenizer.chat.turn_ends == (tokenizer.end_of_text,) and len(runs) == 1
