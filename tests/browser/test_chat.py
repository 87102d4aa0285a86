"""A chat of several turns on the page: what the model reads is the template's text of all turns."""

from __future__ import annotations

import pytest

pytest.importorskip("fastapi", reason="needs the extra serve")
pytest.importorskip("playwright", reason="needs the package playwright")

from actions import generated, ids_of, opened, wait_for_state, write
from playwright.sync_api import expect


def test_turns_system_prompt_edit_and_regenerate(tab, url, models):
    model, tokenizer = models["chat"]
    opened(tab, url)
    tab.select_option("#model", "chat")
    wait_for_state(tab, "idle")
    tab.click("#modes label:has([value=chat])")
    tab.fill("#system", "the fox")

    def said(messages: list[tuple[str, str]], seed: int) -> list[int]:
        turns = [{"role": role, "content": text} for role, text in (("system", "the fox"), *messages)]
        ids = tokenizer.chat.encode(turns, add_generation_prompt=True)
        return ids + generated(model, tokenizer, ids, 6, seed=seed)

    def shown_after(message: str | None, seed: int) -> list[int]:
        if message is not None:
            write(tab, message, tokens=6, seed=seed)
        wait_for_state(tab, "done")
        return ids_of(tab)

    def turns() -> list[str]:
        return [one.text_content() or "" for one in tab.locator("#turns .said").all()]

    answer = lambda ids: tokenizer.decode(ids[-6:])  # noqa: E731
    talk = [("user", "the dog")]
    first = said(talk, 1)
    assert shown_after("the dog", 1) == first and turns() == ["the dog", answer(first)]
    expect(tab.locator("#prompt")).to_have_value("")
    talk += [("assistant", answer(first)), ("user", "over")]
    second = said(talk, 2)
    assert shown_after("over", 2) == second and turns() == ["the dog", answer(first), "over", answer(second)]
    tab.click("#turns [data-again='3']")  # another answer, by the next seed
    expect(tab.locator("#seed")).to_have_value("3")
    third = said(talk, 3)
    expect(tab.locator("#branches .branch")).to_have_count(3)
    assert shown_after(None, 3) == third and turns()[-1] == answer(third)
    tab.click("#turns [data-edit='0']")
    expect(tab.locator("#prompt")).to_have_value("the dog")
    expect(tab.locator("#editing")).to_contain_text("Editing turn 1")
    fourth = said([("user", "lazy")], 4)
    assert shown_after("lazy", 4) == fourth and turns() == ["lazy", answer(fourth)]
    tab.go_back()  # to the third: its turns are there again
    expect(tab.locator("#turns .said")).to_have_count(4)
    assert ids_of(tab) == third and turns() == ["the dog", answer(first), "over", answer(third)]
    tab.reload()
    wait_for_state(tab, "idle")
    assert turns() == ["the dog", answer(first), "over", answer(third)]
    tab.click("#new-chat")
    expect(tab.locator("#turns .said")).to_have_count(0)
    assert ids_of(tab) == [] and tab.input_value("#system") == "the fox"
