"""Chats: turns laid out by a template or as plain text, what is kept, what no longer fits."""

from __future__ import annotations

import pytest
import torch

from glassformer.errors import UsageError
from glassformer.generation import Chat, Sampling
from glassformer.history import build_history
from glassformer.models import Decoder, ModelConfig
from glassformer.processors.tokenizers import TOKENIZERS

ALPHABET = "\n abcdefghijklmnopqrstuvwxyzQA:.?[]"
TEMPLATE = (
    "{% for m in messages %}{{ '[' + m.role + ']' + m.content + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '[assistant]' }}{% endif %}"
)


def talk(block_size: int = 300, template: str | None = None, **settings) -> Chat:
    torch.manual_seed(2)
    tokenizer = TOKENIZERS["characters"]([ALPHABET])
    tokenizer.chat_template = template
    config = ModelConfig.make(
        family="modern", vocab_size=tokenizer.vocab_size, block_size=block_size, n_layer=1, n_head=2, n_embd=16
    )
    settings = {"sampling": Sampling(seed=3), "max_new_tokens": 9, **settings}
    return Chat(Decoder(config).eval(), tokenizer, **settings)


def written(chat: Chat, text: str) -> str:
    return "".join(piece.text for piece in chat.ask(text))


def read(chat: Chat) -> str:
    """What the model has read: the row of its engine, the last token of the answer aside."""
    (length,) = chat.engine.cache.lengths
    return chat.tokenizer.decode(chat.engine.cache.tokens[0, :length])


def test_a_base_model_reads_a_dialogue():
    chat = talk(system="a talk.")
    answer = written(chat, "what?")
    assert read(chat) == ("a talk.\n\nQ: what?\nA:" + answer)[: len(read(chat))]
    written(chat, "why?")
    assert read(chat).startswith(f"a talk.\n\nQ: what?\nA: {answer.strip()}\nQ: why?\nA:")


def test_it_stops_before_the_next_speaker():
    """A model that says `\\nQ:` whatever came before: nothing of it is shown."""
    chat = talk(max_new_tokens=60)
    wanted = chat.tokenizer.encode("ok.\nQ: and")
    step = iter(range(100))

    def force(rows):
        return torch.nn.functional.one_hot(torch.tensor([wanted[next(step)]]), len(ALPHABET)).float() * 50

    chat.model.logits = lambda hidden: force(hidden)[:, None]  # type: ignore[method-assign]
    assert written(chat, "what?") == "ok."
    assert chat.messages[-1] == {"role": "assistant", "content": "ok."}


def test_a_template_lays_the_turns_out():
    chat = talk(template=TEMPLATE, system="be kind")
    first = written(chat, "hello")
    assert read(chat).startswith("[system]be kind\n[user]hello\n[assistant]")
    written(chat, "bye")
    assert f"[assistant]{first}\n[user]bye\n[assistant]" in read(chat)
    assert [message["role"] for message in chat.messages] == ["user", "assistant"] * 2
    chat.reset()
    written(chat, "anew")
    assert read(chat).startswith("[system]be kind\n[user]anew\n[assistant]")


def test_other_models_cannot_chat():
    tokenizer = TOKENIZERS["characters"]([ALPHABET])
    model = build_history("gru", vocab_size=tokenizer.vocab_size, block_size=8, n_embd=12, n_hidden=14)
    with pytest.raises(UsageError, match=r"need a decoder.*Recurrent.*glassformer generate"):
        Chat(model, tokenizer)


def test_what_no_longer_fits_is_left_out_from_the_oldest_turn_on():
    chat = talk(block_size=100, system="be brief")
    for question in ("one " * 4, "two " * 4, "three " * 3):
        written(chat, question.strip())
    assert chat.dropped == 2 and len(chat.messages) == 6  # a question and its answer
    assert read(chat).startswith("be brief\n\nQ: two two")
    with pytest.raises(UsageError, match="the turn has 216 tokens with its surroundings, and the model reads 100"):
        written(chat, "x" * 200)
    assert len(chat.messages) == 6, "a turn that failed was kept"
    assert written(chat, "short")


def test_an_answer_that_is_cut_short_is_kept_as_far_as_it_came():
    chat = talk(max_new_tokens=50)
    answer = chat.ask("what?")
    pieces = [next(answer) for _ in range(4)]
    answer.close()
    assert chat.messages[-1]["content"] == "".join(piece.text for piece in pieces).strip()
    assert not chat.engine.busy
    assert written(chat, "go on")


def test_the_second_turn_reads_only_what_is_new():
    chat = talk(template=TEMPLATE)
    written(chat, "a long first turn of many words")
    sizes: list[int] = []
    chat.model.embedding.register_forward_pre_hook(lambda module, args: sizes.append(args[0].numel()))
    written(chat, "next")
    assert sum(sizes) < len("\n[user]next\n[assistant]") + 9 + 3
