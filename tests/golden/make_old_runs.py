"""How `run-format-2` was made, with the interpreter of the checkout 9f5c043 (version 0.1, before the redesign):

    OLD/.venv/bin/python tests/golden/make_old_runs.py

Four runs that were stopped after 8 of 13 steps, the losses of each when it was not stopped, and the answers of the
stopped one. `test_old_version.py` compares them with today's code.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent / "run-format-2"
TINY = (
    "model.n_layer=1 model.n_head=2 model.n_embd=8 model.n_hidden=12 model.block_size=24 training.steps=13 "
    "training.batch_size=5 training.micro_batch_size=3 training.optimizer=adamw training.learning_rate=0.03 "
    "training.warmup_steps=2 training.dropout=0.1 training.eval_every=4 training.eval_batches=2 "
    "training.checkpoint_every=8 training.sample_every=4 training.sample_tokens=9 training.precision=fp32 "
    "training.compile=off training.device=cpu tokenizer.kind=bpe tokenizer.vocab_size=290 "
)
RUNS = {
    "decoder": ("play.txt", "tokenizer.kind=characters tokenizer.vocab_size=40 model.n_layer=2 data.order=random"),
    "translation": (
        "pairs.tsv",
        "model.n_decoder_layer=1 objective.kind=target_sentence objective.label_smoothing=0.1",
    ),
    "sequence-class": ("labelled.jsonl", "objective.kind=sequence_class model.pooling=mean"),
    "masked-tokens": ("labelled.jsonl", "objective.kind=masked_tokens"),
}
QUESTIONS = {
    "decoder": "generate RUN --prompt good -n 12 --temperature 0 --seed 1 --device cpu --json",
    "translation": "translate RUN good.day the.old.house --n-best 2 -n 9 --json",
    "sequence-class": "classify RUN a.good.day the.bad.house --json",
    "masked-tokens": "fill RUN a.good.<mask> --alternatives 3 --json",
}
WORDS = "the a old good bad day house man sea king speaks goes sees of and to in"


def main() -> None:
    from glassformer import recipes
    from glassformer.training import Interrupted, Listener

    class StopAfterEight(Listener):
        def on_step(self, record: dict[str, Any]) -> None:
            if record["step"] == 8:
                signal.raise_signal(signal.SIGINT)

    shutil.rmtree(HERE, ignore_errors=True)
    HERE.mkdir()
    os.chdir(HERE)
    os.environ["GLASSFORMER_CACHE"] = str(Path("cache").absolute())
    write_data()
    expected = {}
    for name, (data, settings) in RUNS.items():
        words = [*TINY.split(), *settings.split()]
        recipes.train(None, words, data=data, out="whole")
        with contextlib.suppress(Interrupted):
            recipes.train(None, words, data=data, out=name, listeners=[StopAfterEight()])
        metrics = [json.loads(line) for line in Path("whole/metrics.jsonl").read_text().splitlines()]
        expected[name] = {
            "losses": [line["loss"] for line in metrics],
            "val_losses": [line["val_loss"] for line in metrics if "val_loss" in line],
            "evaluate": answer(f"evaluate {name} --json"),
            "question": QUESTIONS[name],
            "answer": answer(QUESTIONS[name].replace("RUN", name)),
        }
        shutil.rmtree("whole")
        recipe = Path(name, "recipe.toml")
        recipe.write_text(recipe.read_text().replace(f"{HERE}/", ""))  # wherever it lies
        for file in ("report.html", "diagnostics.jsonl"):
            Path(name, file).unlink(missing_ok=True)
    recipes.train(str(HERE.parent / "recipes-0.1" / "every-key.toml"), out="whole")
    every_key = [json.loads(line)["loss"] for line in Path("whole/metrics.jsonl").read_text().splitlines()]
    shutil.rmtree("whole")
    Path("expected.json").write_text(json.dumps({"runs": expected, "every-key": every_key}, indent=1) + "\n")
    shutil.rmtree("cache")


def write_data() -> None:
    chance = random.Random(0)
    words = WORDS.split()
    lines = [" ".join(chance.choices(words, k=chance.randint(3, 7))) for _ in range(120)]
    splits = ["validation" if i % 10 == 7 else "test" if i % 10 == 8 else "train" for i in range(120)]
    Path("play.txt").write_text("\n".join(lines) + "\n")
    pairs = [f"{line}\t{' '.join(reversed(line.split()))}\t{s}\n" for line, s in zip(lines, splits, strict=True)]
    Path("pairs.tsv").write_text("".join(pairs))
    rows = [
        {"text": line, "label": "long" if len(line.split()) > 4 else "short", "split": s}
        for line, s in zip(lines, splits, strict=True)
    ]
    Path("labelled.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def answer(words: str) -> Any:
    from glassformer.cli import main as command

    sys.argv = ["glassformer", *(word.replace(".", " ") for word in words.split())]
    with contextlib.redirect_stdout(io.StringIO()) as out:
        command()
    return json.loads(out.getvalue())


if __name__ == "__main__":
    main()
