"""Behaviour 9 of the page: tokens with ids and bytes, the merges one by one, and one text by several tokenizers."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("fastapi", reason="needs the extra serve")
pytest.importorskip("playwright", reason="needs the package playwright")

from actions import ids_of, shown, wait_for_state, written
from playwright.sync_api import expect
from served import running, shaken

from glassformer.models import Decoder, ModelConfig
from glassformer.processors.tokenizers import TOKENIZERS
from glassformer.processors.tokenizers.stepwise import merge_by_merge

TEXT = "the other theory, Grüße 😀\n"


@pytest.fixture(scope="module")
def bpe():
    torch.manual_seed(2)
    tokenizer = TOKENIZERS["bpe"](["the other theory of the weather, then there. " * 20], vocab_size=290)
    config = ModelConfig.make(family="modern", vocab_size=290, block_size=64, n_layer=1, n_head=2, n_embd=16)
    return shaken(Decoder(config)), tokenizer


@pytest.fixture(scope="module")
def address(bpe, models):
    with running({"bpe": bpe, "base": models["base"]}) as url:
        yield url


def reach(tab, address: str, text: str) -> None:
    tab.goto(f"{address}/#tokens")
    wait_for_state(tab, "idle")
    tab.fill("#tokens-text", text)


def test_09_tokens_with_ids_bytes_and_merges_one_by_one(tab, address, bpe, models):
    _, tokenizer = bpe
    reach(tab, address, TEXT)
    ids = tokenizer.encode(TEXT)
    expect(tab.locator(f'#chips [data-source="ids/{len(ids) - 1}"]')).to_have_attribute("data-value", str(ids[-1]))
    chips = tab.eval_on_selector_all(
        "#chips .chip",
        "all => all.map(one => [+one.querySelector('.number').dataset.value, one.querySelector('code').dataset.bytes,"
        " one.querySelector('.token-text').textContent])",
    )
    assert [id for id, _, _ in chips] == ids
    assert [raw for _, raw, _ in chips] == [tokenizer.token_bytes(i).hex(" ") for i in ids]
    assert bytes.fromhex(" ".join(raw for _, raw, _ in chips)) == TEXT.encode()
    texts = [text for _, _, text in chips]
    assert not any("\ufffd" in text for text in texts) and any("\\xf0" in text for text in texts)  # a split emoji
    assert any("␣" in text for text in texts) and texts[-1] == "\\n"  # visible
    assert "tokenizers" not in tab.inner_text("#round-trip")
    expect(tab.locator("#round-trip")).to_have_attribute("data-same", "true")
    numbers = shown(tab, "#tokens-facts")
    assert numbers == {
        "text/characters": len(TEXT), "text/bytes": len(TEXT.encode()), "text/tokens": len(ids),
        "vocabulary": tokenizer.vocab_size
    }  # fmt: skip
    # the merges of a chunk
    chunks = merge_by_merge(tokenizer, TEXT)
    assert chunks is not None
    chunk = next(one for one in chunks if one.text == " theory")
    tab.click("#merges [data-chunk] >> text=␣theory")
    pieces = tab.locator("#merges .piece")
    shown_as = lambda symbols: [symbol.replace(" ", "␣") for symbol in symbols]  # noqa: E731
    assert pieces.all_inner_texts() == shown_as(chunk.symbols) and len(chunk.merges) > 2
    for step, merge in enumerate(chunk.merges):
        marked = tab.locator("#merges .piece.next").all_inner_texts()
        assert marked[:2] == shown_as([merge.left, merge.right])
        assert shown(tab, "#merges")[f"merge/{step}"] == merge.rank
        tab.click("#merge-next") if step % 2 else tab.keyboard.press("ArrowRight")
        assert pieces.all_inner_texts() == shown_as(merge.state)
    expect(tab.locator("#merge-next")).to_be_disabled()
    assert [v for k, v in shown(tab, "#merges").items() if k.startswith("merged/")] == chunk.ids
    tab.click("#merge-back")
    assert pieces.all_inner_texts() == shown_as(chunk.merges[-2].state)
    # another model, whose tokenizer knows no emoji and merges nothing
    tab.select_option("#model", "base")
    expect(tab.locator("#round-trip")).to_have_attribute("data-same", "false")
    expect(tab.locator("#merges")).to_be_hidden()
    spelled = models["base"][1].decode(models["base"][1].encode(TEXT))
    assert tab.locator("#round-trip q").text_content() == spelled


def test_09_one_text_by_several_tokenizers(tab, address, bpe):
    text = "the other weather"
    reach(tab, address, (text + "\n") * 150)
    expect(tab.locator("#tokens-facts")).to_contain_text("2,700 characters")
    tab.click("#compare-tokenizers")
    expect(tab.locator("#tokenizers table")).to_be_visible()
    names = tab.locator("#tokenizers tbody tr td:first-child").all_inner_texts()
    assert names[:3] == ["its own (bpe)", "characters", "bpe"]
    numbers, V = shown(tab, "#tokenizers .table"), bpe[1].vocab_size
    assert numbers["tokenizers/0/0/1"] == V and numbers["tokenizers/0/0/4"] == V * 16
    assert numbers["tokenizers/0/1/1"] == len({*text, "\n"}) and numbers["tokenizers/0/1/2"] == 2700
    assert numbers["tokenizers/0/0/2"] == len(bpe[1].encode((text + "\n") * 150))


def test_an_emoji_that_was_written_goes_whole_into_the_views(tab, address, bpe):
    tab.goto(address)
    wait_for_state(tab, "idle")
    written(tab, "the 😀", tokens=1)
    begun = bpe[1].encode("the 😀")
    assert ids_of(tab)[: len(begun)] == begun
    tab.click("#panels [data-panel=tokens]")
    assert tab.input_value("#tokens-text").startswith("the 😀")
