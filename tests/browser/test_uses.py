"""Uses beyond text on the page: a sound is uploaded, heard and its words marked; drafts of diffusion step by step; a
caption's words on a picture."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="needs the extra serve")
pytest.importorskip("playwright", reason="needs the package playwright")
pytest.importorskip("soundfile", reason="needs the package soundfile")
pytest.importorskip("PIL", reason="needs the extra images")

import soundfile
from every_use import USES, colours
from playwright.sync_api import expect
from served import listening

from glassformer.figures import to_json
from glassformer.inspection.look import open_subject, show
from glassformer.server.app import create_app, open_models

NAMES = {"whisper": "Whisper", "captions": "captions", "writer": "diffusion", "pairs": "images and texts"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("models")
    for name, use in NAMES.items():
        USES[use].save(place / name)
    return place


@pytest.fixture(scope="module")
def address(folder):
    models = open_models([str(folder / name) for name in NAMES], device="cpu", dtype="fp32")
    with listening(create_app(models)) as url:
        yield url


def opened(tab, address: str, view: str, model: str) -> None:
    tab.goto(f"{address}/#look/{view}?model={model}")
    expect(tab.locator("#view-title")).to_have_text(view)


def drawn(tab) -> None:
    expect(tab.locator("#figures")).to_be_visible()
    expect(tab.locator("#figures[aria-busy]")).to_have_count(0)


def test_a_sound_is_uploaded_heard_and_its_words_are_marked_as_time_passes(tab, address, folder, tmp_path):
    """The toy says one word of noise; so the answer about the second sound has three that are written here."""
    path = tmp_path / "noise.wav"
    soundfile.write(path, 0.1 * np.random.default_rng(3).normal(size=12_000), 16_000)
    real = show("speech", open_subject(str(folder / "whisper")), {"sound": str(path)})
    opened(tab, address, "speech", "whisper")
    tab.set_input_files("#view-file", path)
    drawn(tab)
    expect(tab.locator(".heard .word")).to_have_count(len(real.words))
    expect(tab.locator("#figures .heat_map")).to_have_count(2)

    words = [("one", 0.0, 0.2), ("two", 0.2, 0.5), ("three", 0.55, 0.7)]
    figures = {"figures": to_json(replace(real, words=words).figures())}
    tab.route("**/api/look/speech", lambda route: route.fulfill(json=figures))
    tab.click("#view-form button[type=submit]")
    expect(tab.locator(".heard .word")).to_have_text(["one", "two", "three"])
    tab.wait_for_function("document.querySelector('.heard audio').readyState >= 2")
    for time, marked in ((0.3, ["two"]), (0.52, []), (0.6, ["three"]), (0.1, ["one"])):
        tab.evaluate("time => { document.querySelector('.heard audio').currentTime = time }", time)
        expect(tab.locator(".heard .word[aria-current]")).to_have_text(marked)
    tab.locator(".heard .word").nth(1).click()
    tab.wait_for_function("document.querySelector('.heard audio').currentTime >= 0.2")
    assert all(request.startswith((address, "blob:")) for request in tab.requests)


def test_drafts_of_diffusion_are_steps_and_the_space_bar_shows_the_next(tab, address, folder):
    options = {"text": "ABE<mask:6>", "steps": 3}
    expected = show("diffusion", open_subject(str(folder / "writer")), options)
    tab.goto(f"{address}/#look/diffusion?model=writer&text=ABE%3Cmask%3A6%3E&steps=3")
    drawn(tab)
    steps = tab.locator(".draft-step")
    expect(steps).to_have_count(3)
    for number, draft in enumerate(expected.drafts):
        expect(steps.nth(number)).to_be_visible()
        expect(tab.locator(".draft-step:visible")).to_have_count(1)
        shown = steps.nth(number).locator(".draft").evaluate("one => one.textContent")
        assert shown.replace("␣", " ") == draft
        tab.keyboard.press(" ")
    expect(steps.nth(2)).to_be_visible()  # the last one stays
    written = steps.nth(2).locator("mark").evaluate_all("all => all.map(one => one.textContent).join('')")
    assert len(written) == expected.written[2]
    tab.keyboard.press("ArrowLeft")
    expect(steps.nth(1)).to_be_visible()
    assert "step=2" in tab.url


def test_a_picture_is_captioned_and_each_word_has_its_map(tab, address, folder, tmp_path):
    path = colours(tmp_path / "picture")
    expected = show("image-attention", open_subject(str(folder / "captions")), {"text": path})
    opened(tab, address, "image-attention", "captions")
    tab.set_input_files("#view-file", path)
    drawn(tab)
    expect(tab.locator("#figures .heat_map")).to_have_count(1 + len(expected.words))
    opened(tab, address, "tokens", "captions")  # a text, although the model reads pictures
    expect(tab.locator("#view-file")).to_be_hidden()


def test_a_model_of_images_and_texts_takes_either(tab, address, tmp_path):
    opened(tab, address, "attention", "pairs")
    tab.fill("#view-form [name=text]", "ABE")
    tab.click("#view-form button[type=submit]")
    drawn(tab)
    tab.set_input_files("#view-file", colours(tmp_path / "picture"))
    expect(tab.locator("#figures")).to_contain_text("<class>")
