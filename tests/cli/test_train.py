"""`glassformer train`, `resume`, `evaluate`, `demo` and `plan`: what they print and write."""

from __future__ import annotations

import functools
import json
import re
import shutil
import sys
import warnings
from pathlib import Path

import pytest
from command_line import TINY, same_end

from glassformer.recipes.reading import tomllib


def test_what_training_prints(glassformer, play, tmp_path):
    result = glassformer("train", *TINY, "--data", "play.txt")
    assert result.code == 0
    run = "runs/play-1"  # named after the text
    loss, cost, predicted, next_step = result.out.splitlines()
    assert re.fullmatch(
        r"validation loss \d\.\d{4} \+- \d\.\d{4}, training loss \d\.\d{4}, \d\.\d{4} bits per byte, "
        r"perplexity \d+\.\d{3} \(767 targets; best at step 13\)",
        loss,
    )
    assert re.fullmatch(rf"13 steps, 429 tokens in [\d.]+ s; .* {run}", cost)
    assert re.fullmatch(r"predicted \(and actual\): seconds [\d.]+ \([\d.]+\), peak memory, MB .*", predicted)
    assert next_step.endswith(f': glassformer generate {run} --prompt "..."')
    lines = result.err.splitlines()
    assert lines[0] == "4,192 parameters: classic, 1 layer, 2 heads, 16 wide, 11 tokens of context, 44 logits"
    assert [line.split()[1] for line in lines if line.startswith("step ")][-1] == "13/13"
    assert [line for line in lines if "step 5" in line and not line.startswith("step ")], "a sample, with its step"
    quiet = glassformer("train", *TINY, "--data", "play.txt", "-q")
    assert quiet.out.splitlines()[1].endswith("runs/play-2") and quiet.err.splitlines() == lines[:1]


def test_standard_output_has_only_json(glassformer, play):
    result = glassformer("train", *TINY, "--data", "play.txt", "--out", "run", "--json")
    shown = json.loads(result.out)
    losses = "val_loss n interval val_bits_per_byte perplexity train_loss_eval train_interval train_n"
    keys = f"run {losses} best_step steps tokens seconds parameters peak_memory_bytes whole_seconds"
    assert list(shown) == keys.split() and shown["run"] == "run"
    assert shown["steps"] == 13 and shown["parameters"] == 4192
    assert json.loads((play.parent / "run" / "summary.json").read_text()) == shown


def test_evaluation_equals_the_run_s_summary(glassformer, finished):
    """The summary's loss is that of model/ on the whole validation split, and so is this one."""
    summary = json.loads((finished / "summary.json").read_text())
    evaluated = json.loads(glassformer("evaluate", finished, "--json").out)
    names = {"loss": "val_loss", "bits_per_byte": "val_bits_per_byte"}
    assert list(evaluated) == ["loss", "n", "interval", "bits_per_byte", "perplexity"]
    assert evaluated == {key: summary[names.get(key, key)] for key in evaluated}
    shown = [line.split() for line in glassformer("evaluate", finished).out.splitlines()]
    assert shown[0][:4] == ["loss", f"{summary['val_loss']:.4f}", "+-", f"{summary['interval']:.4f}"]
    assert shown[1:] == [["perplexity", f"{summary['perplexity']:.3f}"],
                         ["bits", "per", "byte", f"{summary['val_bits_per_byte']:.4f}"]]  # fmt: skip
    other = json.loads(glassformer("evaluate", finished / "checkpoints" / "step-000008", "--json").out)
    assert other["n"] == evaluated["n"] and other["loss"] > evaluated["loss"]  # an older one has learned less


def test_evaluation_on_another_text(glassformer, finished, play, tmp_path):
    (tmp_path / "other.txt").write_text(play.read_text()[::-1])
    own, other = (
        json.loads(glassformer("evaluate", finished, "--data", data, "--json").out) for data in (play, "other.txt")
    )
    assert own == json.loads(glassformer("evaluate", finished, "--json").out)
    assert other["loss"] > own["loss"]


@pytest.mark.parametrize("option", [("--out", "answers.jsonl"), ("--beam", "2"), ("--limit", "3")])
def test_options_of_answers_need_answers(refused, finished, option):
    refused("evaluate", finished, *option, code=2, names=(option[0], "--answers"))


def test_a_model_folder_that_belongs_to_no_run_needs_a_text(glassformer, refused, finished, play, tmp_path):
    shutil.move(finished / "model", tmp_path / "model")
    refused("evaluate", "model", code=2, names=("model belongs to no run", "--data"))
    assert glassformer("evaluate", "model", "--data", "play.txt").code == 0


@pytest.mark.parametrize("kind", ["translation", "masked-tokens"])
def test_a_model_of_another_task_is_evaluated_only_in_its_run(kind, glassformer, play, tmp_path):
    golden = Path(__file__).parents[1] / "golden" / "run-format-2" / kind
    shutil.copytree(golden / "model", tmp_path / "model")
    result = glassformer("evaluate", "model", "--data", "play.txt")
    assert (result.code, result.out) == (2, "")
    assert "model belongs to no run" in result.err and "glassformer train" in result.err and result.err.count("\n") == 1


def test_overrides_are_read_as_toml_and_as_plain_text(glassformer, play, tmp_path):
    result = glassformer(
        "train", *TINY, "training.learning_rate=2e-3", "training.beta2=.5", "model.bias=false", "training.steps=1e1",
        'training.sample_prompt=First Citizen:', "tokenizer.kind='bytes'", "training.grad_clip = 0.25",
        "--data", "play.txt", "--out", "run", "--seed", "7", "-q",
    )  # fmt: skip
    assert result.code == 0
    kept = tomllib.loads((tmp_path / "run" / "recipe.toml").read_text())
    training = kept["training"]
    assert (training["learning_rate"], training["beta2"], training["grad_clip"]) == (0.002, 0.5, 0.25)
    assert (training["steps"], training["seed"], training["sample_prompt"]) == (10, 7, "First Citizen:")
    assert kept["model"]["bias"] is False and kept["tokenizer"]["kind"] == "bytes"
    assert kept["asked"]["overrides"][-1] == "training.grad_clip = 0.25"
    samples = [json.loads(line)["text"] for line in (tmp_path / "run" / "samples.jsonl").read_text().splitlines()]
    assert len(samples) == 2 and all(text.startswith("First Citizen:") for text in samples)


def test_a_recipe_of_your_own(glassformer, play, tmp_path):
    """`recipes show > mine.toml`, change it, train with its path: as its help says."""
    (tmp_path / "mine.toml").write_text(glassformer("recipes", "show", "shakespeare-char-cpu").out)
    settings = ["model.n_layer=1", "model.n_embd=16", "model.n_head=2", "training.steps=2", "training.warmup_steps=0"]
    assert glassformer("train", "mine.toml", *settings, "--data", "play.txt", "-q").code == 0
    kept = tomllib.loads((tmp_path / "runs" / "mine-1" / "recipe.toml").read_text())
    assert (kept["training"]["beta2"], kept["model"]["n_layer"]) == (0.99, 1)
    assert kept["asked"]["recipe"] == "mine.toml"


def test_without_a_recipe_it_prints_the_derived_settings_with_reasons(glassformer, play, tmp_path):
    result = glassformer("train", "training.steps=2", "training.schedule=linear", "training.sample_every=0", "--data",
                         "play.txt", "-q")  # fmt: skip
    assert result.code == 0
    *choices, shape = result.err.splitlines()
    derived = {}
    for choice in choices:
        key, value, why = re.fullmatch(r"(\w+\.\w+) = (\S+)  \((.+)\)", choice).groups()
        derived[key] = (value, why)
    assert derived["tokenizer.kind"] == ("characters", "44 different characters in 7.7 kB of text")
    assert derived["model.block_size"] == ("128", "context, for 6,892 tokens of text")
    assert derived["training.optimizer"] == ("muon", "needs about half the steps of AdamW")
    assert not {"training.steps", "training.schedule"} & derived.keys()  # those were asked for
    assert shape.endswith("128 tokens of context, 44 logits")
    kept = tomllib.loads((tmp_path / "runs" / "play-1" / "recipe.toml").read_text())
    assert kept["derived"]["choices"] == choices
    assert (kept["training"]["schedule"], kept["training"]["optimizer"]) == ("linear", "muon")


def test_training_on_standard_input_can_be_resumed(glassformer, play, tmp_path, small_runs, monkeypatch):
    result = glassformer("train", *TINY, "training.steps=5", "--data", "-", "-q", stdin=play.read_bytes())
    run = tmp_path / "runs" / "stdin-1"
    assert result.code == 0 and run.is_dir()
    recipe = (run / "recipe.toml").read_text()
    (run / "recipe.toml").write_text(recipe.replace("steps = 5", "steps = 13"))  # as if it had been stopped there
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert glassformer("resume", run, "-q").code == 0


def test_a_run_continues_from_any_folder(glassformer, play, tmp_path, monkeypatch):
    """The text was named by a relative path; resume may be typed elsewhere."""
    glassformer("train", *TINY, "--data", "play.txt", "--out", "run", "-q")
    whole = shutil.copytree("run", "whole")
    shutil.rmtree("run/checkpoints/step-000013")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    result = glassformer("resume", "../run", "--json")
    assert result.code == 0 and json.loads(result.out)["steps"] == 13
    assert same_end(tmp_path / "run", tmp_path / whole)


def test_a_compiled_model_learns_the_same(glassformer, play, tmp_path, small_runs, monkeypatch):
    """PyTorch's compiler up to the point where it would write machine code, which takes a minute."""
    import torch

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    settings = [word for word in TINY if not word.startswith("training.dropout")]  # it draws masks in another order
    for compiled in ("on", "off"):
        choice = f"training.compile={compiled}"
        assert glassformer("train", *settings, choice, "--data", "play.txt", "--out", compiled, "-q").code == 0
    on, off = (json.loads((tmp_path / run / "summary.json").read_text()) for run in ("on", "off"))
    assert on["val_loss"] == pytest.approx(off["val_loss"], abs=1e-5)


def test_threads_are_chosen_shown_and_kept(glassformer, play, tmp_path, monkeypatch):
    """Tests run with OMP_NUM_THREADS=1, which wins. Without, it trains on one, and a resume keeps the number."""
    import torch

    from glassformer import threads

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads, "watch", lambda: None)
    monkeypatch.setattr(threads, "processors", lambda: 2)
    before = torch.get_num_threads()
    try:
        shown = glassformer("train", *TINY, "--data", "play.txt", "--out", "run", "-q").err.splitlines()
        assert shown[0] == "machine.threads = 1  (vectors of 528 numbers a step are too few to share)"
        assert torch.get_num_threads() == 1
        recipe = tomllib.loads((tmp_path / "run" / "recipe.toml").read_text())
        assert recipe["machine"]["threads"] == 1 and recipe["machine"]["waiting"] == threads.how_threads_wait()
        text = (tmp_path / "run" / "recipe.toml").read_text()
        (tmp_path / "run" / "recipe.toml").write_text(text.replace("threads = 1\n", "threads = 2\n"))
        shutil.rmtree(tmp_path / "run" / "checkpoints" / "step-000013")
        assert glassformer("resume", "run", "-q").code == 0
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("compiled", ["off", "on"])
def test_bf16_brings_no_warnings_of_torch(glassformer, play, monkeypatch, torch_warnings, compiled):
    """As `auto` chooses where the processor multiplies bf16. All warnings are shown, those of libraries too."""
    import torch

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    monkeypatch.setattr(sys, "warnoptions", ["always"])
    settings = [word for word in TINY if not word.startswith(("training.precision", "model.family"))]
    settings += ["model.family=modern", "training.precision=bf16", f"training.compile={compiled}", "training.steps=5"]
    result = glassformer("train", *settings, "--data", "play.txt", "--out", "run", "-q")
    assert result.code == 0
    assert re.fullmatch(r"[\d,]+ parameters: modern, 1 layer.*\n", result.err)
    assert json.loads((play.parent / "run" / "summary.json").read_text())["steps"] == 5


def test_warnings_are_shown_if_they_are_ours_or_asked_for(glassformer, monkeypatch):
    """`python -W` and PYTHONWARNINGS ask for those of libraries; Python keeps that in `sys.warnoptions`."""
    from glassformer.errors import GlassformerWarning
    from glassformer.training import run_table

    def list_runs(*args, **kwargs):
        warnings.warn("from a library", stacklevel=1)
        warnings.warn("from glassformer", GlassformerWarning, stacklevel=1)
        return []

    monkeypatch.setattr(run_table, "list_runs", list_runs)
    monkeypatch.setattr(sys, "warnoptions", [])
    assert glassformer("runs", "--json") == (0, "[]\n", "warning: from glassformer\n")
    monkeypatch.setattr(sys, "warnoptions", ["default"])
    assert glassformer("runs", "--json").err == "warning: from a library\nwarning: from glassformer\n"


def test_a_machine_that_cannot_compile(glassformer, play, monkeypatch):
    import torch

    def no_compiler(graph, inputs):
        raise RuntimeError("No working C++ compiler found")

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=no_compiler))
    result = glassformer("train", *TINY, "training.compile=on", "--data", "play.txt", "-q")
    assert (result.code, result.out) == (1, "")
    assert result.err.splitlines()[1:] == [
        "error: the model cannot be compiled here (backend='no_compiler' raised:); try training.compile=off"
    ]


def test_the_summary_is_over_the_whole_split_when_evaluations_were_not(glassformer, play, tmp_path):
    settings = ["training.eval_batches=1", "training.batch_size=2", "training.micro_batch_size=2"]
    shown = json.loads(glassformer("train", *TINY, *settings, "--data", "play.txt", "--out", "run", "--json", "-q").out)
    evaluated = json.loads(glassformer("evaluate", "run", "--json").out)
    assert (shown["val_loss"], shown["n"]) == (evaluated["loss"], evaluated["n"]) and shown["n"] == 767
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert shown["val_loss"] not in [line.get("val_loss") for line in lines]  # those are over 22 targets each


def test_the_demo_prints_loss_sample_folder_and_three_things_to_try(glassformer):
    done = glassformer("demo", "training.steps=5", "training.eval_every=0", "training.sample_every=0")
    assert done.code == 0, done.err
    sample, rest = done.out.split("validation loss", 1)
    assert len(sample.strip("\n")) >= 450
    assert re.match(r" \d\.\d{4} \(uniform guessing: 4\.1744\) after \d+ s of training", rest)
    assert "runs/demo-1" in rest and rest.count("\n  glassformer ") == 3


def test_the_table_and_the_json_of_a_plan_agree(glassformer, play):
    words = ["plan", *TINY, "--data", play, "--no-probe"]
    shown, result = glassformer(*words), json.loads(glassformer(*words, "--json").out)
    assert (shown.code, shown.err) == (0, "") and max(map(len, shown.out.splitlines())) <= 80
    assert f"{result['parameters']:,}" in shown.out and "no curve" in shown.out and "no probe" in shown.out
    for part, count in result["parameters_by_part"].items():
        assert part in shown.out and f"{count:,}" in shown.out
    assert {"seconds", "seconds_per_step", "val_loss", "val_loss_interval", "basis"} <= result.keys()
    assert result["memory_bytes"]["peak"] > result["memory_bytes"]["libraries"] > 0


def test_a_plan_for_another_machine(glassformer):
    words = ["plan", "gpt2-124m", "model.size=gpt3-175b", "training.sharding=full", "training.batch_size=64"]
    machine = ["--devices", 64, "--device-memory", "80GB", "--device-flops", "989e12"]
    result = glassformer(*words, *machine)
    assert result.code == 0 and "57,982,058,496" in result.out and "of 80.0 GB" in result.out


@pytest.mark.parametrize("shown", ["80 pounds", "GB", "1.2.3GB"])
def test_an_amount_of_memory_that_is_none(refused, shown):
    refused("plan", "gpt2-124m", "--device-memory", shown, code=2, names=(f"--device-memory={shown}", "80GB"))
