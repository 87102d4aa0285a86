"""A recipe of stages: a text, chats, preferences. It is stopped and goes on, and refuses what would change it."""

import json
import random
import re
import shutil
import signal
from pathlib import Path

import pytest
from command_line import own_process, wait_for

from glassformer import recipes
from glassformer.errors import DataError, RunError, UsageError
from glassformer.hub import load
from glassformer.recipes.stage_results import figures_of
from glassformer.recipes.stages import has_stages, plan_stages, read_stages
from glassformer.training import Callback, Interrupted

NAMES, THINGS = ("Anna", "Ben", "Cleo", "Dan"), ("a red ball", "a small cat", "an old book")
RECIPE = """
[[stage]]
name = "base"
[stage.model]
family = "modern"
n_layer = 1
n_head = 2
n_embd = 16
block_size = 48
[stage.tokenizer]
kind = "bpe"
vocab_size = 300
specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
[stage.data]
source = "text.txt"
[stage.training]
steps = 20
batch_size = 4
optimizer = "muon"
eval_every = 20
precision = "fp32"
compile = "off"

[[stage]]
name = "sft"
[stage.data]
source = "chats.jsonl,more.jsonl"
[stage.task]
kind = "sft"
[stage.training]
steps = 150
batch_size = 4
sequence_length = 40
eval_every = 75
checkpoint_every = 30
sample_tokens = 8
precision = "fp32"

[[stage]]
name = "dpo"
[stage.data]
source = "pairs.jsonl"
[stage.task]
kind = "dpo"
[stage.training]
steps = 4
batch_size = 4
sequence_length = 40
sample_tokens = 8
precision = "fp32"
"""


def lines(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with `three.toml` and what it learns from."""
    folder, r = tmp_path_factory.mktemp("stages"), random.Random(5)
    (folder / "three.toml").write_text(RECIPE)
    sentences = (f"{r.choice(NAMES)} has {r.choice(THINGS)}. {r.choice(NAMES)} sees it." for _ in range(300))
    (folder / "text.txt").write_text("\n".join(sentences))

    def turn(role, text):
        return {"role": role, "content": text}

    def chat(i):
        return {"messages": [turn("user", f"Who is {i}?"), turn("assistant", f"{r.choice(NAMES)} sees it.")]}

    lines(folder / "chats.jsonl", [chat(i) for i in range(60)])
    lines(folder / "more.jsonl", [chat(i) for i in range(60, 80)])
    pairs = [{"prompt": [turn("user", f"Who {i}?")], "chosen": r.choice(NAMES), "rejected": "it"} for i in range(60)]
    lines(folder / "pairs.jsonl", pairs)
    return folder


@pytest.fixture(scope="module")
def whole(place):
    """The stages, never stopped."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        return recipes.train_stages("three.toml", out="whole")


@pytest.fixture(autouse=True)
def here(place, monkeypatch):
    monkeypatch.chdir(place)


def test_each_stage_starts_from_the_one_before_and_the_last_one_is_the_model(place, whole):
    assert [(stage["name"], stage["task"], stage["steps"]) for stage in whole["stages"]] == [
        ("base", "next_token", 20),
        ("sft", "sft", 150),
        ("dpo", "dpo", 4),
    ]
    for stage, before in (("sft", "base"), ("dpo", "sft")):
        kept = recipes.reading.tomllib.loads((place / "whole" / stage / "recipe.toml").read_text())
        assert kept["training"]["start_from"] == str(place / "whole" / before)
        assert (place / "whole" / stage / "report.html").is_file()
    [base, _], [sft, _], [last, _] = (load(place / "whole" / name) for name in ("base", "sft", "."))
    assert (base.config, sft.config) == (last.config, last.config)
    assert weights("whole/dpo") == weights("whole") != weights("whole/sft") != weights("whole/base")
    (_, before), (_, tokenizer) = load("whole/base"), load("whole")
    assert before.chat_template is None and "<|im_start|>" in tokenizer.chat_template and tokenizer == before


def weights(folder: str) -> bytes:
    return Path(folder, "model/model.safetensors").read_bytes()


def test_what_is_held_out_is_measured_after_each_stage(whole):
    held_out = whole["held_out"]
    assert {stage: list(found) for stage, found in held_out.items()} == {
        "base": ["base", "sft", "dpo"],
        "sft": ["base", "sft", "dpo"],
        "dpo": ["dpo"],
    }
    (before, n, _), (after, *_) = (held_out["sft"][stage]["loss"] for stage in ("base", "sft"))
    assert after < before - 1 and n > 0
    own = json.loads(Path("whole/base/summary.json").read_text())["val_loss"]
    assert held_out["base"]["base"]["loss"][0] == pytest.approx(own, abs=1e-6)


def test_all_stages_answer_the_same_prompts_that_none_has_learned_from(whole):
    rows = [json.loads(line) for name in ("chats", "more") for line in Path(f"{name}.jsonl").read_text().splitlines()]
    learned = recipes.stage_results.open_task(recipes.recipe_file.recipe_of("whole/sft"))[0].source.examples["train"]
    prompts = [answer["prompt"] for answer in whole["answers"]]
    assert prompts and set(prompts) <= {row["messages"][0]["content"] for row in rows}
    assert not set(prompts) & {row.answers[0][0]["content"] for row in learned}
    assert all(set(answer) == {"prompt", "base", "sft", "dpo"} for answer in whole["answers"])
    page = Path("whole/report.html").read_text()
    assert prompts[0] in page and len(figures_of(whole)) == 3 + len(prompts)


def test_killed_in_the_second_stage_it_goes_on_to_the_same_bits(place, whole):
    process = own_process("train", "three.toml", "--out", "killed", "--quiet", cwd=place)
    wait_for((place / "killed/sft/checkpoints/step-000030").is_dir, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not Path("killed/sft/summary.json").exists() and Path("killed/base/summary.json").exists()
    logged: list[str] = []
    again = recipes.resume_stages("killed", log=logged.append)
    assert not any(line.startswith("base ...") for line in logged) and any("going on after" in line for line in logged)
    assert [weights(f"killed/{stage}") for stage in ("base", "sft", "dpo", ".")] == [
        weights(f"whole/{stage}") for stage in ("base", "sft", "dpo", ".")
    ]
    assert (again["answers"], again["held_out"]) == (whole["answers"], whole["held_out"])


def test_ctrl_c_says_how_all_stages_go_on(tmp_path):
    class Stop(Callback):
        def on_step(self, record):
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Interrupted, match=f"after step 1, .*continue with: glassformer resume {tmp_path / 'new'}$"):
        recipes.train_stages("three.toml", out=tmp_path / "new", callbacks=[Stop()])


def test_the_same_command_keeps_what_is_finished_and_other_settings_are_refused(whole, tmp_path):
    logged: list[str] = []
    assert recipes.train_stages("three.toml", out="whole", log=logged.append) == whole and logged == []
    with pytest.raises(UsageError, match=r"whole was begun with other settings \(dpo.training.steps=4, and now 5\)"):
        recipes.train_stages("three.toml", ["dpo.training.steps=5"], out="whole")
    with pytest.raises(UsageError, match="seed=not set, and now 3"):
        recipes.train_stages("three.toml", seed=3, out="whole")
    with pytest.raises(UsageError, match="cannot change when stages are resumed"):
        recipes.resume_stages("whole", ["sft.training.steps=200"])
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(UsageError, match="is not empty and holds no stages of three"):
        recipes.train_stages("three.toml", out=tmp_path)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sft.training.stepps=3"], "stage sft: unknown key training.stepps; did you mean steps?"),
        (
            ["training.steps=3"],
            "'training.steps=3' begins with no stage of three .*; for example base.training.steps=3",
        ),
        (["stf.training.steps=3"], "begins with no stage of three .*; did you mean sft?"),
        (["sft.training.steps=many"], "stage sft: training.steps='many' is not a whole number"),
        (["sft.training.sequence_length=64"], r"stage sft: training.sequence_length=64 is more than the model reads"),
        (["dpo.training.start_from=runs/x"], "stage dpo: it starts from the stage before"),
        (["dpo.tokenizer.specials=['<a>']"], "stage dpo: tokenizer.specials is not read by task.kind=dpo"),
        (["base.tokenizer.kind=gpt2", "base.tokenizer.vocab_size=50257"], "gpt2 tokenizer takes no special tokens"),
    ],
)
def test_a_wrong_setting_is_one_line_and_nothing_is_trained(words, message, tmp_path):
    with pytest.raises(UsageError, match=message) as caught:
        recipes.train_stages("three.toml", words, out=tmp_path / "new")
    assert "\n" not in str(caught.value) and not (tmp_path / "new/base").exists()


def test_data_of_a_later_stage_that_are_not_there_are_missed_before_the_first_step(tmp_path):
    with pytest.raises(DataError, match=r"pears\.jsonl: no such file"):
        recipes.train_stages("three.toml", ["dpo.data.source=pears.jsonl"], out=tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("[[stage]]", "[training]\nsteps = 3\n\n[[stage]]"), "training stands beside the stages"),
        (('name = "sft"', 'name = "base"'), "name='base' of a stage; give each its own"),
        (('name = "sft"', 'name = "model"'), "name='model' of a stage"),
        (('name = "sft"', 'name = "../sft"'), "name='../sft' of a stage"),
        (("[stage.task]", "[stage.tusk]"), "stage sft: unknown key tusk; did you mean task?"),
    ],
)
def test_a_recipe_of_stages_that_is_wrong_is_refused(change, message, tmp_path):
    (tmp_path / "three.toml").write_text(RECIPE.replace(*change, 1))
    with pytest.raises(UsageError, match=message):
        read_stages(str(tmp_path / "three.toml"))


def test_paths_are_kept_absolute_and_names_as_they_are(place, tmp_path):
    kept = read_stages("three.toml", ["sft.data.source=chats.jsonl,alpaca"])
    assert kept.tables["sft"]["data"]["source"] == f"{place / 'chats.jsonl'},alpaca"
    assert kept.tables["base"]["data"]["source"] == str(place / "text.txt")


def test_a_plan_has_every_stage(whole):
    first, later = plan_stages("three.toml", probing=False)
    assert first.steps == 20 and [(stage.name, stage.steps) for stage in later] == [("sft", 150), ("dpo", 4)]
    speed = first.tokens_per_step / first.seconds_per_step
    assert later[1].tokens == 4 * 4 * 40 * 2 and later[1].seconds == pytest.approx(later[1].tokens / speed)


def test_several_processes_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(recipes.stage_folder.World, "join", lambda: recipes.stage_folder.World(size=2))
    with pytest.raises(UsageError, match="stages are trained in one process"):
        recipes.train_stages("three.toml", out=tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_damaged_folder_says_so(place, tmp_path):
    shutil.copytree(place / "whole", tmp_path / "whole")
    (tmp_path / "whole/settings.json").write_text("{")
    with pytest.raises(RunError, match=r"settings\.json: damaged"):
        recipes.resume_stages(tmp_path / "whole")


def test_other_commands_name_those_that_take_stages():
    assert has_stages("three.toml") and not has_stages("shakespeare-fast") and not has_stages(None)
    with pytest.raises(UsageError, match=r"three\.toml: a recipe of several stages"):
        recipes.tune("sft", "three.toml")


def test_a_report_of_stages_links_to_theirs(glassformer, place, whole, tmp_path):
    shutil.copytree(place / "whole", tmp_path / "whole")
    page = tmp_path / "whole/report.html"
    before = page.read_text()
    for path in (page, tmp_path / "whole/sft/report.html"):
        path.unlink()
    shown = glassformer("report", "whole")
    assert (shown.code, shown.out) == (0, "whole/report.html\n"), shown.err
    assert page.read_text() == before and (tmp_path / "whole/sft/report.html").is_file()
    assert re.findall('href="(.*?)"', before) == [f"{stage}/report.html" for stage in ("base", "sft", "dpo")]
    shutil.rmtree(tmp_path / "whole/dpo")  # two of three are done
    (tmp_path / "whole/results.json").unlink()
    assert glassformer("report", "whole").code == 0
    half = page.read_text()
    assert re.findall('href="(.*?)"', half) == ["base/report.html", "sft/report.html"]
    assert "not begun" in half and "150 of 150" in half and "glassformer resume whole" in half
    (tmp_path / "whole/settings.json").write_text("{")
    refused = glassformer("report", "whole")
    assert refused.code == 1 and "settings.json: damaged" in refused.err and refused.err.count("\n") == 1


def test_the_commands(glassformer, place, whole, tmp_path):
    for path in (*place.glob("*.toml"), *place.glob("*.txt"), *place.glob("*.jsonl")):
        shutil.copy(path, tmp_path)
    shutil.copytree(place / "whole", tmp_path / "done")
    shown = glassformer("resume", "done")
    assert shown.code == 0 and "the model is in done/model" in shown.out and "base:" in shown.out
    assert max(map(len, shown.out.splitlines())) <= 80
    assert json.loads(glassformer("resume", "done", "--json").out)["held_out"] == whole["held_out"]
    plan = glassformer("plan", "three.toml", "--no-probe")
    assert plan.code == 0 and "stage sft: at most" in plan.out
    refused = glassformer("train", "three.toml", "sft.training.steps=x", "--out", "new")
    assert refused.code == 2 and refused.err.count("\n") == 1
    chat = glassformer("chat", "done", "--message", "Who is 3?", "--max-new-tokens", "4", "--seed", "1")
    assert chat.code == 0, chat.err
