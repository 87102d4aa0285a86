"""Training on the page: a run as it grows (22 of GLASS_BOX.md), its checkpoints, several runs compared."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest
import torch

pytest.importorskip("fastapi", reason="needs the extra serve")
pytest.importorskip("playwright", reason="needs the package playwright")

from actions import wait_for_state
from playwright.sync_api import expect
from resolving import TINY
from served import running
from test_served_runs import STEPS, open_checkpoint

import glassformer as gf
from glassformer.recipes import train
from glassformer.server.runs import Runs
from glassformer.training import RunFolder
from glassformer.training.compare_figures import comparison_figures
from glassformer.training.report_figures import score_chart
from glassformer.training.run_history import RunHistory


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """runs/one: finished. runs/two: the same without its end, as if it were being trained."""
    from play import PLAY

    runs = tmp_path_factory.mktemp("runs")
    text = runs / "play.txt"
    text.write_text(PLAY, encoding="utf-8")
    train(None, [*TINY, *STEPS], data=str(text), out=runs / "one")
    shutil.copytree(runs / "one", runs / "two")
    two = RunFolder(runs / "two")
    two.summary.unlink()
    lines = two.metrics.read_bytes().splitlines(keepends=True)
    two.metrics.write_bytes(b"".join(lines[:5]))
    (runs / "rest.jsonl").write_bytes(b"".join(lines[5:]))
    shutil.rmtree(two.checkpoints)
    return runs


@pytest.fixture(scope="module")
def url(folder):
    pair = tuple(gf.load(folder / "one"))
    with running({"one": pair}, runs=Runs([folder]), open_checkpoint=open_checkpoint) as address:
        yield address


def test_22_a_new_step_is_on_the_screen_within_a_second_and_a_reload_loses_nothing(tab, url, folder):
    two = RunFolder(folder / "two")
    tab.goto(f"{url}/#train/two")
    step = tab.locator('[data-source="run/steps"]')
    expect(step).to_have_attribute("data-value", "5")
    assert tab.inner_text("#run-state") == "running, step 5 of 10"
    for line in (folder / "rest.jsonl").read_text().splitlines()[:3]:
        two.append(two.metrics, json.loads(line))
        written = time.monotonic()
        wanted = str(json.loads(line)["step"])
        tab.wait_for_function(
            "wanted => document.querySelector('[data-source=\"run/steps\"]').dataset.value === wanted", arg=wanted
        )
        assert time.monotonic() - written < 5  # half a second between two looks; the rest is for a busy machine
    tab.reload()
    expect(step).to_have_attribute("data-value", "8")
    curve = tab.locator('g.curve[data-source="two/0/0/0"] polyline').get_attribute("data-values")
    drawn = score_chart(RunHistory(two)).lines[0]
    assert [float(v) for v in curve.split()] == pytest.approx(list(drawn.y), rel=1e-6)


def test_22_raw_and_smoothed_curves_levels_and_samples_of_a_run(tab, url, folder):
    tab.goto(f"{url}/#train/one")
    expect(tab.locator("#run-title")).to_have_text("one")
    chart = score_chart(RunHistory(RunFolder(folder / "one")))
    for i, line in enumerate(chart.lines):
        shown = tab.locator(f'g.curve[data-source="one/0/0/{i}"] polyline').get_attribute("data-values")
        assert [float(v) for v in shown.split()] == pytest.approx(list(line.y), rel=1e-6)
    levels = tab.locator(".run-sections .card").first.locator("path.level")
    assert levels.count() == len(chart.levels) == 2  # ln V and the bigram model
    assert set(tab.locator(".run-sections h2").all_inner_texts()) >= {"Curves", "By layer, over time"}
    tab.click('[data-run="two"]')
    expect(tab.locator("#run-title")).to_have_text("two")
    tab.go_back()
    expect(tab.locator("#run-title")).to_have_text("one")


def test_the_slider_of_checkpoints_drives_every_panel(tab, url, folder):
    tab.goto(url)
    wait_for_state(tab, "idle")
    tab.fill("#prompt", "the the")
    tab.click("#read")
    wait_for_state(tab, "done")

    def surprise() -> list[float]:
        shown = tab.eval_on_selector_all(
            "#tokens [data-id][data-value]", "all => all.map(t => Number(t.dataset.value))"
        )
        return shown

    def expected(path: Path) -> list[float]:
        model, tokenizer = gf.load(path)
        ids = torch.tensor([tokenizer.encode("the the")])
        with torch.no_grad():
            logp = model.eval()(ids)[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
        return (-logp / torch.log(torch.tensor(2.0))).tolist()

    best = surprise()
    assert best == pytest.approx(expected(folder / "one"), abs=1e-4)
    expect(tab.locator("#checkpoint-shown")).to_be_visible()
    assert tab.inner_text("#checkpoint-shown") == "best"
    tab.locator("#checkpoint").focus()
    tab.keyboard.press("Home")
    expect(tab.locator("#checkpoint-shown")).to_have_text("step 2")
    wait_for_state(tab, "done")
    first = surprise()
    assert first == pytest.approx(expected(folder / "one" / "checkpoints" / "step-000002"), abs=1e-4)
    assert first != pytest.approx(best, abs=1e-3)
    tab.click("#panels [data-panel=look]")
    tab.click('[data-view="surprise"]')
    expect(tab.locator("#figures")).to_be_visible()
    tab.wait_for_url("**model=one%402**")
    values = tab.eval_on_selector_all(
        "#figures .figure.tokens [data-value]", "all => all.map(t => Number(t.dataset.value))"
    )
    assert values == pytest.approx(first, abs=1e-4)
    link = tab.url
    again = tab.context.new_page()
    again.goto(link)
    expect(again.locator("#checkpoint-shown")).to_have_text("step 2")
    expect(again.locator("#figures")).to_be_visible()


def test_a_run_s_checkpoints_lead_to_looking_inside(tab, url):
    tab.goto(f"{url}/#train/one")
    tab.locator("#run-checkpoints button", has_text="6").click()
    expect(tab.locator("#look-panel")).to_be_visible()
    expect(tab.locator("#checkpoint-shown")).to_have_text("step 6")
    tab.wait_for_url("**model=one%406**")


def test_without_runs_the_page_says_how(tab, folder):
    with running({"one": tuple(gf.load(folder / "one"))}) as url:
        tab.goto(f"{url}/#train")
        expect(tab.locator("#train-panel")).to_contain_text("glassformer serve runs/")
        assert tab.locator("#time-travel").is_hidden()


def test_runs_are_compared_with_intervals(tab, url, folder):
    tab.goto(f"{url}/#train")
    tab.click('.view-list a:has-text("Compare")')
    expect(tab.locator("#run-comparison table").first).to_be_visible()
    figures = comparison_figures([folder / name for name in ("one", "two")])
    (scores,) = [figure for figure in figures if getattr(figure, "title", "") == "Which is better"]
    row = [row[0] for row in scores.rows].index("one")
    shown = tab.locator("#run-comparison tr", has_text="one").first
    values = shown.locator("td[data-value]").evaluate_all("all => all.map(td => Number(td.dataset.value))")
    assert sorted(values) == pytest.approx(sorted(float(v) for v in scores.rows[row] if isinstance(v, int | float)))
    assert tab.locator("#run-comparison .curve .band").count() >= 1  # the 95 % interval
    tab.wait_for_url("**runs%5B%5D=**")
    tab.uncheck('.runs-to-compare [name="two"]')
    expect(tab.locator("#train-panel")).to_contain_text("Choose two or more")
    tab.go_back()
    expect(tab.locator("#train-panel")).to_be_visible()


def test_22_a_hundred_thousand_steps_are_drawn_as_what_can_be_seen(tab, tmp_path, folder):
    run = RunFolder.create(tmp_path / "long", 'name = "long"\n')
    records = ({"step": n, "loss": 4 * n**-0.1, "grad_norm": 1 + n % 7} for n in range(1, 100_001))
    run.metrics.write_text("".join(json.dumps(record) + "\n" for record in records))
    with running({"one": tuple(gf.load(folder / "one"))}, runs=Runs([tmp_path])) as url:
        tab.goto(f"{url}/#train/long")
        expect(tab.locator('[data-source="run/steps"]')).to_have_attribute("data-value", "100000")
        lines = tab.locator("g.curve polyline").evaluate_all("all => all.map(line => line.points.numberOfItems)")
        assert len(lines) >= 2 and max(lines) <= 2000  # four a column of pixels: more cannot be seen
        picture = tab.locator("section.curves svg").first
        picture.focus()
        shown = set()
        for _ in range(20):
            tab.keyboard.press("ArrowRight")
            shown.add(tab.locator("section.curves output").first.inner_text())
        assert len(shown) == 20  # each key reads out another step
