"""report.html: the numbers are the files', nothing in a run can break or leave the page, and a browser shows it."""

from __future__ import annotations

import html
import json
import math
import re
import shutil
import subprocess
from html.parser import HTMLParser
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from patience import PATIENCE
from skips import CHROMIUM, NEEDS_CHROMIUM

from glassformer.figures import Column, Table, to_json
from glassformer.processors.tokenizers.alphabet import legible
from glassformer.training import RunFolder, report_figures
from glassformer.training.report import ReportWriter, write_report
from glassformer.training.report_figures import diagnostic_maps, metric_charts, score_chart, smooth
from glassformer.training.run_history import RunHistory
from glassformer.training.run_table import Row, compare_runs, list_runs

HOSTILE = '</pre></script><script>alert("x")</script><img src=x onerror=alert(1)> & {{ 7 * 7 }} \u2028 \x85 ü'
RECIPE = """
name = "a <b>bold</b> recipe"
[training]
steps = 300
[asked]
overrides = ["training.steps=300", "<i>"]
[derived]
bigram_loss = 2.482
[derived.model]
vocab_size = 65
[machine]
device = "cpu"
compile = false
"""
SUMMARY = {
    "val_loss": 1.83959,
    "interval": 0.01239,
    "n": 111539,
    "val_bits_per_byte": 2.65397,
    "perplexity": 6.29416,
    "best_step": 250,
    "steps": 300,
    "tokens": 307200,
    "seconds": 3723.4,
    "parameters": 221984,
    "peak_memory_bytes": 3 * 2**30,
}


def step(n: int, **more) -> dict:
    record = {"step": n, "tokens": 1024 * n, "seconds": n / 10, "loss": 1 + 3 / n, "lr": 0.01, "grad_norm": 0.5}
    return {**record, "tokens_per_second": 10_000 + n, "mfu": 0.25, **more}


def lines(records) -> str:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


@pytest.fixture
def run(tmp_path) -> RunFolder:
    """A whole run, written by hand, with a text in each place that would be a program if it were not escaped."""
    run = RunFolder(tmp_path / "runs" / "mine")
    run.path.mkdir(parents=True)
    run.recipe.write_text(RECIPE)
    losses = {n: 1.8 + 30 / n for n in (100, 200, 300)}
    evaluated = {
        n: {"val_loss": loss, "val_bits_per_byte": 1.3 * loss, "val_interval": 0.02} for n, loss in losses.items()
    }
    run.metrics.write_text(lines(step(n, **evaluated.get(n, {})) for n in range(1, 301)))
    run.samples.write_text(lines([{"step": 100, "text": HOSTILE}, {"step": 300, "text": "ROMEO: so\nbe it"}]))
    parameters = {f"blocks.{i}.{HOSTILE if i == 1 else 'attention.qkv.weight'}": i + 1 for i in range(2)}
    run.diagnostics.write_text(
        lines(
            {
                "step": n,
                "parameters": {k: {"weight": 1, "gradient": v / n, "update": v / 1e3} for k, v in parameters.items()},
                "activations": {"blocks.0.feedforward.hidden": {"rms": 0.7, "zero": 0.125}},
            }
            for n in (100, 200, 300)
        )
    )
    run.events.write_text(lines([{"step": 150, "seconds": 15.0, "kind": "warning", "text": HOSTILE}]))
    plan = {"parameters": 221984, "memory_bytes": {"weights": 2**20, "peak": 2 * 2**30}, "seconds": 3600.0}
    shown = {"val_loss": 1.8, "val_loss_interval": [1.7, 1.9], "basis": {"seconds": "a <b>probe</b>"}}
    run.plan.write_text(json.dumps({**plan, **shown}))
    run.summary.write_text(json.dumps(SUMMARY))
    return run


class Page(HTMLParser):
    """Elements by name, and the text of those that tests ask for."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[str] = [""]
        self.samples: list[str] = []
        self.scripts: list[str] = []
        self.rows: list[list[str]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag == "pre":
            self.samples.append("")
        if tag == "script":
            self.scripts.append("")
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th") and self.rows:
            self.rows[-1].append("")

    def handle_data(self, data):
        last = self.tags[-1]
        if last == "pre":
            self.samples[-1] += data
        elif last == "script":
            self.scripts[-1] += data
        elif last in ("td", "th"):
            self.rows[-1][-1] += data

    def handle_endtag(self, tag):
        self.tags.append("/" + tag)


def report(run: RunFolder) -> str:
    path = write_report(run)
    assert path == run.report
    return path.read_text(encoding="utf-8")


def pictures(page: str) -> set[str]:
    return set(re.findall(r'<svg [^>]*aria-label="(.*?)"', page))


def headline(page: str) -> dict[str, str]:
    found = re.findall(r'<dd data-key="(\w+)">(.*?)</dd>', page)
    return {key: html.unescape(re.sub(r"<[^>]+>", "", value)) for key, value in found}


def test_the_headline_is_the_summary(run):
    assert headline(report(run)) == {
        "val_loss": "1.8396 ± 0.0124",
        "val_bits_per_byte": "2.6540",
        "perplexity": "6.294",
        "best_step": "250",
        "parameters": "221,984",
        "steps": "300",
        "tokens": "307,200",
        "seconds": "1 h 2 min",
    }


def test_an_unfinished_run_shows_its_best_evaluation(run):
    run.summary.unlink()
    run.plan.unlink()
    page = report(run)
    shown = headline(page)
    assert (shown["val_loss"], shown["best_step"], shown["steps"]) == ("1.9000 ± 0.0200", "300", "300")
    assert (shown["tokens"], shown["seconds"]) == ("307,200", "30.0 s") and "parameters" not in shown
    assert "Plan against actual" not in page and "after step 300 of 300" in page


def test_plan_against_actual(run):
    rows = {row[0]: row[1:] for row in Page(report(run)).rows if len(row) == 4}
    assert rows["parameters"] == ["221,984", "221,984", "1.00"]
    assert rows["peak memory"] == ["2.00 GiB", "3.00 GiB", "1.50"]
    assert rows["time"] == ["1 h 0 min", "1 h 2 min", "1.03"]
    assert rows["validation loss"] == ["1.8000 (1.7000 to 1.9000)", "1.8396", "1.02"]
    assert rows["memory: weights"] == ["1.0 MiB", "", ""]


def test_what_was_measured_is_drawn(run):
    page = report(run)
    steps = {"Loss", "Learning rate", "Gradient norm, before clipping", "Tokens a second"}
    assert steps | {"Update / weight, by layer", "Gradient, root mean square, by layer"} < pictures(page)
    assert page.count(f"ln V = {math.log(65):.4f}") >= 3 <= page.count("bigram model = 2.4820")
    assert page.count('class="event"') == 6  # the warning at step 150, in each picture over steps


def test_what_was_never_measured_is_not_drawn(run):
    records = [step(n) for n in range(1, 301)]
    run.metrics.write_text(lines({k: v for k, v in r.items() if k not in ("mfu", "grad_norm")} for r in records))
    drawn = pictures(report(run))
    assert "Tokens a second" in drawn and not any("Gradient norm" in name or "Utilisation" in name for name in drawn)


def test_metrics_that_only_the_task_knows_are_drawn_and_listed(run):
    """A metric of steps alone, one of evaluations with an interval, and one of both."""
    more = {
        100: {"val_reward": 1.0, "val_reward_interval": 0.5, "val_kl": 0.1},
        300: {"val_reward": 2.0, "val_kl": 0.2},
    }
    records = (step(n, kl=n / 1000, clip_share=0.1, val_loss=3 - n / 300, **more.get(n, {})) for n in (100, 200, 300))
    run.metrics.write_text(lines(records))
    run.summary.unlink()
    page = report(run)
    assert {"Reward", "Kl", "clip share"} <= pictures(page) and {"val_reward", "val_kl"} <= headline(page).keys()
    reward, kl = metric_charts(RunHistory(run))
    assert (list(reward.lines[0].y), reward.lines[0].low[0]) == ([1.0, 2.0], 0.5)
    assert [line.name for line in kl.lines] == ["smoothed", "validation"]


def test_a_score_that_is_no_loss_takes_its_place(run):
    """The best is the highest, its chart comes first, and the loss is one of the further metrics."""
    run.recipe.write_text(RECIPE + '[derived.score]\nname = "val_accuracy"\ndirection = "higher"\n')
    values = {100: 0.5, 200: 0.9, 300: 0.7}
    more = {n: {"val_accuracy": v, "train_accuracy_eval": v, "val_interval": 0.1} for n, v in values.items()}
    run.metrics.write_text(lines(step(n, val_loss=9.0, **more.get(n, {})) for n in (100, 200, 300)))
    page = report(run)
    shown = headline(page)
    assert (shown["val_accuracy"], shown["best_step"], shown["val_loss"]) == ("0.9000 ± 0.1000", "200", "9.0000")
    assert {"Accuracy", "Loss"} <= pictures(page) and "<h2>Accuracy</h2>" in page and "ln V" not in page
    row = Row.of(RunHistory(run, every_step=False))
    assert (row.value, row.train, row.to_dict()["val_accuracy"]) == (0.9, 0.9, 0.9)
    other = RunFolder(shutil.copytree(run.path, run.path.parent / "other"))
    other.metrics.write_text(lines([step(1, val_accuracy=0.95)]))
    assert [r.name for r in list_runs(run.path.parent, sort="loss")] == ["other", "mine"]
    comparison = compare_runs([run.path, other.path])
    assert comparison.best == 1 and comparison.differences[0].unit == "accuracy"
    other.recipe.write_text(RECIPE)
    assert compare_runs([run.path, other.path]).best is None  # an accuracy and a loss


def test_samples_that_are_figures_are_drawn_and_damaged_ones_are_text(run):
    table = to_json([Table("Nearest words", (Column("word"), Column("cosine", "share")), [("king", 0.75)])])
    records = [{"step": 1, "text": "king 75 %", "figures": table}, {"step": 2, "text": "only text", "figures": [{}]}]
    run.samples.write_text(lines(records))
    page = report(run)
    assert ["king", "75.0 %", ""] in Page(page).rows and "<h3>Nearest words</h3>" in page
    assert Page(page).samples == ["only text"]


def test_nothing_in_a_run_can_become_a_program(run):
    text = report(run)
    page = Page(text)
    assert page.tags.count("script") == len(re.findall(r"<svg ", text)) + 1  # their data, and ours
    assert not {"img", "b/", "iframe", "link", "object"} & set(page.tags)
    assert page.samples == [legible(HOSTILE), "ROMEO: so\nbe it"]
    assert all(isinstance(json.loads(script), dict) for script in page.scripts[:-1])
    assert ["150", "warning", legible(HOSTILE)] in page.rows
    assert "onerror" not in re.sub(r"&lt;.*?&gt;|\\u003c.*?\\u003e", "", text)


def test_the_page_needs_nothing_but_itself(run):
    text = report(run)
    assert "default-src 'none'" in text
    assert not re.search(r"https?:|\bsrc=|@import|//[a-z]", re.sub(r"(?s)<pre.*?</pre>|&#39;|src=x", "", text))
    assert "url(" not in text


def test_damaged_lines_are_left_out_and_counted(run):
    good = run.metrics.read_text().splitlines()
    half = good[-1][:20]
    run.metrics.write_bytes("\n".join([*good[:9], "{oops", "[1]", "\0\xff", *good[9:], half]).encode("latin-1"))
    run.diagnostics.write_text('{"step": 1, "parameters": {"a": 3, "b": {"update": "x"}}, "activations": []}\n')
    run.summary.write_text("{")
    run.plan.write_text('{"val_loss": "soon", "memory_bytes": 3}')
    h = RunHistory(run)
    assert h.curves["step"].tolist() == list(range(1, 301))
    assert h.damaged == {"metrics.jsonl": 4, "summary.json": 1}
    assert "4 lines of metrics.jsonl could not be read" in report(run)


def test_any_file_may_be_missing_or_empty_and_all_of_them(run):
    files = ["recipe", "metrics", "samples", "diagnostics", "events", "plan", "summary"]
    for name in files:
        kept = getattr(run, name).read_text()
        getattr(run, name).write_text("")
        assert "<h1>mine</h1>" in report(run)
        getattr(run, name).unlink()
        assert "<h1>mine</h1>" in report(run)
        getattr(run, name).write_text(kept)
    for name in files[1:]:
        getattr(run, name).unlink()
    shown = headline(report(run))
    assert shown["val_loss"] == "–" and shown["steps"] == "0"


def test_each_step_once_and_in_order_the_last_one_written_holds(run):
    run.metrics.write_text(lines([step(1), step(2), step(3, loss=9), step(2, loss=5, val_loss=2.0), step(3, loss=7)]))
    h = RunHistory(run)
    assert h.curves["step"].tolist() == [1, 2, 3] and h.curves["loss"].tolist() == [4, 5, 7]
    assert [record["step"] for record in h.evaluations] == [2] and h.last_step["step"] == 3


def test_a_brief_look_reads_the_evaluations_and_the_last_line(run):
    h = RunHistory(run, every_step=False)
    assert h.curves["step"].tolist() == [100, 200, 300]
    assert [r["step"] for r in h.evaluations] == [100, 200, 300]
    run.metrics.write_text(run.metrics.read_text() + lines([step(301)]))
    assert RunHistory(run, every_step=False).last_step["step"] == 301


@pytest.mark.parametrize(
    ("change", "state"),
    [
        ("summary", "finished"),
        ("fresh", "running"),
        ("old", "stopped"),
        ("saved", "stopped"),
        ("event", "diverged"),
        ("nan", "diverged"),
    ],
)
def test_states(run, change, state):
    import os

    if change != "summary":
        run.summary.unlink()
    if change == "event":
        run.events.write_text(lines([{"step": 300, "kind": "diverged", "text": "loss nan"}]))
    if change == "nan":
        run.metrics.write_text(lines([step(1), step(2, loss=math.nan)]))
    if change == "saved":
        (run.checkpoints / "step-000300").mkdir(parents=True)
    if change == "old":
        os.utime(run.metrics, (1e9, 1e9))
    assert RunHistory(run).state == state


def test_smoothing_has_no_lag_and_steps_over_what_is_no_number():
    steps, slope = np.arange(200.0), np.arange(200.0)
    assert smooth(steps, slope, 10)[1][100] == pytest.approx(100)
    slope[[0, 90]] = math.nan
    at, smoothed = smooth(steps, slope, 10)
    assert abs(smoothed[100] - 100) < 0.5 and np.isfinite(smoothed).all() and at.tolist() == steps.tolist()
    assert np.var(smooth(np.arange(3000), np.random.default_rng(0).normal(size=3000), 40)[1]) < 2 / 40


def test_smoothing_a_long_curve_is_smoothing_it_whole(monkeypatch):
    x = np.arange(9001.0)
    y = np.sin(x / 2000) + np.random.default_rng(0).normal(size=9001)
    at, few = smooth(x, y, 500)
    monkeypatch.setattr("glassformer.training.report_figures.SMOOTHED_POINTS", 10_000)
    _, whole = smooth(x, y, 500)
    assert len(few) == 4501 and np.abs(few - whole[at.astype(int)])[10:-10].max() < 0.02


def test_a_heat_map_shows_the_highest_of_what_it_joins(run):
    records = [{"step": i, "parameters": {"a": {"update": 0.5 if i == 301 else 1e-3}}} for i in range(1, 601)]
    run.diagnostics.write_text(lines(records))
    (updates,) = diagnostic_maps(RunHistory(run))
    assert updates.values.shape == (1, 60) and updates.values.max() == 0.5
    assert updates.columns[int(updates.values.argmax())] == "310"


def test_a_deep_model_has_a_row_for_each_layer_and_not_for_each_matrix(run):
    names = [f"blocks.{i}.{part}.weight" for i in range(40) for part in ("attention.qkv", "feedforward.down")]
    record = {"step": 1, "parameters": {name: {"update": 1e-3 * (1 + i)} for i, name in enumerate(names)}}
    run.diagnostics.write_text(lines([record]))
    (updates,) = diagnostic_maps(RunHistory(run))
    assert updates.rows == [f"blocks.{i}" for i in range(40)]
    np.testing.assert_allclose(updates.values[:2], [[2e-3], [4e-3]])  # the larger of a layer's two


def test_a_long_run_stays_small_and_complete(run):
    n = 20_000
    random = np.random.default_rng(0)
    loss, speed = 2 + random.random(n), random.random(n)
    records = (step(i + 1, loss=loss[i], grad_norm=loss[i], tokens_per_second=1e4 * speed[i]) for i in range(n))
    more = (r | {"val_loss": r["loss"], "val_interval": 0.1} if r["step"] % 100 == 0 else r for r in records)
    run.metrics.write_text(lines(more))
    run.samples.write_text(lines({"step": i, "text": f"sample {i} " + "x" * 5000} for i in range(1, 1001)))
    page = report(run)
    assert len(page.encode()) < 1_000_000
    samples = Page(page).samples
    assert len(samples) == 16 and samples[0].startswith("sample 1 ") and samples[-1].startswith("sample 1000 ")
    assert all("more characters in samples.jsonl" in sample for sample in samples)
    values = score_chart(RunHistory(run)).lines[0].y
    drawn = [v for v in json.loads(Page(page).scripts[0])["lines"][0]["y"] if v is not None]
    assert (min(drawn), max(drawn)) == pytest.approx((values.min(), values.max()), rel=1e-4)


def test_the_writer_writes_at_evaluations_and_takes_a_hundredth_of_the_time(run, monkeypatch):
    from glassformer.training import report as module

    now = [1000.0]
    written = []
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])

    def slow(run):
        written.append(now[0])
        now[0] += 2.0

    monkeypatch.setattr(module, "write_report", slow)
    writer = ReportWriter()
    writer.run, writer.last = run, 300
    for second in range(1000, 2000):
        now[0] = max(now[0], float(second))
        if second % 10 == 0:
            writer.on_diagnostics({"step": 1})
    assert len(written) == 5 and all(b - a >= 200 for a, b in pairwise(written))


def test_a_page_that_cannot_be_made_ends_no_run(run, monkeypatch):
    from jinja2 import UndefinedError

    from glassformer.training import report as module

    def broken(run):
        raise UndefinedError("'val_loss' is undefined")

    events = []
    monkeypatch.setattr(module, "write_report", broken)
    writer = ReportWriter()
    settings = SimpleNamespace(steps=300)
    writer.on_start(SimpleNamespace(run=run, settings=settings, event=lambda *shown: events.append(shown)))
    for n in range(1, 4):
        writer.on_diagnostics({"step": n})
    assert events == [("warning", "report.html is not kept up to date: 'val_loss' is undefined")]


@pytest.mark.skipif(CHROMIUM is None, reason=NEEDS_CHROMIUM)
def test_a_browser_shows_it_and_reads_out_what_the_files_say(run, tmp_path):
    """The page as it is, and a pointer put on three pictures by a script of the test's own."""
    probe = """<script>
    const all = [...document.querySelectorAll(".picture")];
    const picture = title => all.find(p => p.querySelector("svg").ariaLabel === title);
    const at = (title, x, y) => {
      const svg = picture(title).querySelector("svg"), box = svg.getBoundingClientRect();
      const [left, top, right, bottom] = svg.dataset.frame.split(" ").map(Number), size = svg.viewBox.baseVal;
      const place = { clientX: box.left + (left + x * (right - left)) / size.width * box.width,
                      clientY: box.top + (top + y * (bottom - top)) / size.height * box.height };
      svg.dispatchEvent(new PointerEvent("pointermove", place));
      return picture(title).querySelector("output").textContent;
    };
    const shown = () => ["linear", "logarithmic"].map(c => getComputedStyle(document.querySelector("." + c)).display);
    const found = [shown(), at("Learning rate", 0.5, 0.5), at("Loss", 1, 0.5), at("Update / weight, by layer", 1, 0.1)];
    document.getElementById("log").click();
    document.title = JSON.stringify([...found, shown(), document.body.scrollWidth]);
    </script>"""
    page = tmp_path / "page.html"
    page.write_text(report(run).replace("</body>", probe + "</body>"), encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--dump-dom"]
    done = subprocess.run(
        [CHROMIUM, *flags, f"--user-data-dir={tmp_path / 'profile'}", "--window-size=500,900", f"file://{page}"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    title = html.unescape(re.search(r"<title>(.*?)</title>", done.stdout)[1])
    shown, rate, loss, update, switched, width = json.loads(title)
    assert shown == ["block", "none"] and switched == ["none", "block"]
    assert width <= 500  # nothing makes a narrow page scroll sideways
    assert re.fullmatch(r"step 15[01]: Learning rate 0.01", rate)
    smoothed = f"training, smoothed over 10 steps {smooth(np.arange(1, 301), 1 + 3 / np.arange(1, 301), 10)[1][-1]:.5g}"
    assert loss == f"step 300: training 1.01 · {smoothed} · validation 1.9"
    assert update == "step 300: blocks.0.attention.qkv 0.001"
    samples = re.findall(r"(?s)<pre>(.*?)</pre>", done.stdout)
    assert html.unescape(samples[0]) == legible(HOSTILE)
    shutil.rmtree(tmp_path / "profile", ignore_errors=True)


def test_what_layers_add_and_reward_against_kl_are_drawn_from_the_files(tmp_path):
    run = RunFolder.create(tmp_path / "run", 'name = "x"\n')
    for step in (1, 2, 3):
        run.append(run.metrics, {"step": step, "loss": 1.0, "reward": 0.1 * step, "kl": 0.5 * step})
        taps = {
            "blocks.0.attention.output": {"rms": 0.5 * step},
            "blocks.0.residual.after": {"rms": 2.0},
            "blocks.1.feedforward.output": {"rms": 1.0},
            "blocks.1.residual.after": {"rms": 4.0},
            "blocks.1.attention.pattern": {"rms": 9.0},
        }
        run.append(run.diagnostics, {"step": step, "parameters": {}, "activations": taps})
    h = RunHistory(run)
    (shares,) = report_figures.residual_map(h)
    assert list(shares.rows) == ["blocks.0.attention", "blocks.1.feedforward"]
    assert shares.values.tolist() == [[0.25, 0.5, 0.75], [0.25, 0.25, 0.25]]
    (chart,) = report_figures.reward_chart(h)
    assert chart.title == "Reward against KL" and (np.diff(chart.lines[0].x) > 0).all() and len(chart.lines[0].y) == 3
    other = RunFolder.create(tmp_path / "other", 'name = "x"\n')
    other.append(other.metrics, {"step": 1, "loss": 1.0})
    assert report_figures.residual_map(RunHistory(other)) == report_figures.reward_chart(RunHistory(other)) == []
