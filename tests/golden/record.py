"""Record what a checkout of glassformer answers, and compare two records, to the bit.

    python tests/golden/record.py record OUT --inputs FOLDER [--only PART ...]    with the interpreter of that checkout
    python tests/golden/record.py compare A B [--only PART ...]                   exit code 1: they differ

Only the command line and the public names of `import glassformer as gf` are used, so that the same script runs with an
old checkout and with one whose modules have other names. `cases.py` says what is asked, `inputs.py` what is read.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import re
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "COLUMNS": "80", "NO_COLOR": "1", "HF_HUB_OFFLINE": "1"}

import cases
import inputs
from talking import chats, serve

Record = dict[str, Any]


class Recorder:
    """Calls glassformer in one process, inside `OUT/work`: `inputs` is a link there, and runs lie in `runs`."""

    def __init__(self, out: Path, folder: Path):
        import glassformer

        self.failed: dict[str, Any] = {}
        self.out, self.inputs, self.work = out.resolve(), folder.resolve(), out.resolve() / "work"
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir(parents=True)
        (self.work / "inputs").symlink_to(self.inputs)
        os.environ["GLASSFORMER_CACHE"] = str(self.work / "cache")
        inputs.make(self.inputs, Path(str(glassformer.__file__)).parent)
        os.chdir(self.work)

    def call(self, *words: str) -> Any:
        """What a command prints with --json; of one that fails, its exit code and its line."""
        found = self._call(*words)
        renamed = cases.COMMANDS.get(words[0])
        if isinstance(found, dict) and found.get("exit") == 2 and renamed:
            found = self._call(*renamed.split(), *words[1:])
        return found

    def _call(self, *words: str) -> Any:
        from glassformer.cli import main

        code: Any = 0
        sys.argv = ["glassformer", *words]
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), warnings.catch_warnings():
            try:
                main()
            except SystemExit as end:
                code = end.code
            except Exception as error:  # a mistake of the program: recorded as one
                code = type(error).__name__
                err.write(str(error))
        if code:
            return {"exit": code, "message": self.plain((err.getvalue().splitlines() or [""])[-1])}
        printed = out.getvalue()
        try:
            return self.plain(json.loads(printed))
        except json.JSONDecodeError:
            return self.plain([_json_or_text(line) for line in printed.splitlines()])

    def plain(self, value: Any) -> Any:
        """Without what depends on the machine or on the moment, and with paths as seen from the working folder."""
        if isinstance(value, dict):
            return {str(k): self.plain(v) for k, v in value.items() if k not in cases.OF_THE_MACHINE}
        if isinstance(value, (list, tuple)):
            return [self.plain(v) for v in value]
        if isinstance(value, str):
            return value.replace(f"{self.work}/", "").replace(str(self.inputs), "inputs")
        return value

    def run(self, name: str) -> Path:
        """The run folder of a case of `cases.RUNS`; it is trained when it is first asked for."""
        path = Path("runs") / name
        if not path.exists() and name not in self.failed:
            recipe, data, settings = cases.RUNS[name]
            settings = re.sub(r"@(\S+)", lambda m: str(self.run(m[1])), settings)
            words = [*recipe.split(), *(["--data", f"inputs/{data}"] if data else []), *settings.split()]
            done = self.call("train", *words, "--out", str(path), "--json", "-q")
            if "exit" in done:
                self.failed[name] = done
        return path


def _json_or_text(line: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError:
        return line


def weights(folder: Path) -> Record:
    """Sum and norm of every tensor, in fp64."""
    from safetensors.torch import load_file

    found = {}
    for file in sorted(folder.glob("*.safetensors")):
        for name, tensor in sorted(load_file(file).items()):
            found[name] = [float(tensor.double().sum()), float(tensor.double().norm())]
    return found


def of_run(recorder: Recorder, path: Path) -> Record:
    """What a run left behind: resolved recipe, numbers of every step, samples, summary, weights."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib

    lines = {name: path / f"{name}.jsonl" for name in ("metrics", "samples", "events", "diagnostics")}
    record: Record = {"recipe": tomllib.loads((path / "recipe.toml").read_text())}
    record["recipe"].pop("machine", None)
    record |= {n: [json.loads(x) for x in f.read_text().splitlines()] for n, f in lines.items() if f.exists()}
    record["summary"] = json.loads((path / "summary.json").read_text())
    record["weights"] = weights(path / "model")
    return dict(recorder.plain(record))


def attempt(question: Callable[..., Any], *given: Any) -> Any:
    """What Python answers, or what it raises."""
    import torch

    try:
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return question(*given)
    except Exception as error:
        return {"exit": type(error).__name__, "message": str(error)}


# Parts: each yields (case, what it found)

Cases = Iterator[tuple[str, Any]]


def losses(recorder: Recorder) -> Cases:
    for name in cases.RUNS:
        path = recorder.run(name)
        yield name, recorder.failed.get(name) or of_run(recorder, path)
    yield "resumed at step 10", resumed(recorder, "adamw-dropout")
    yield "resumed at step 10, muon", resumed(recorder, "shakespeare-fast")
    yield "for longer", longer(recorder, "adamw-dropout")


def resumed(recorder: Recorder, name: str) -> Any:
    """A run whose last checkpoint is lost goes on from step 10, and comes to the same numbers."""
    path, whole = Path("runs") / f"{name}-resumed", recorder.run(name)
    shutil.copytree(whole, path)
    for step in sorted((path / "checkpoints").iterdir())[1:]:
        shutil.rmtree(step)
    done = recorder.call("resume", str(path), "--json", "-q")
    if "exit" in done:
        return done
    found, expected = of_run(recorder, path), of_run(recorder, whole)
    return {"equal": {key: found[key] == expected[key] for key in ("metrics", "samples", "weights")}, **found}


def longer(recorder: Recorder, name: str) -> Any:
    path = Path("runs") / f"{name}-longer"
    shutil.copytree(recorder.run(name), path)
    done = recorder.call("resume", str(path), "training.steps=30", "--json", "-q")
    return done if "exit" in done else of_run(recorder, path)


def tokens(recorder: Recorder) -> Cases:

    models = {name: f"inputs/models/{name}" for name in inputs.DECODERS}
    models |= {name: str(recorder.run(name)) for name in cases.WRITERS}
    for name, path in models.items():
        for how, words in cases.WRITE.items():
            yield f"{name}, {how}", written(recorder.call("generate", path, *words.split(), *cases.PROMPT, "--json"))
        yield f"{name}, without a cache", attempt(without_cache, path)
    for how, words in cases.WRITE_ON.items():
        path = str(recorder.run("shakespeare-fast"))
        yield f"toy run, {how}", recorder.call("generate", path, *words.split(), *cases.PROMPT)


def without_cache(path: str) -> list[int]:
    import glassformer as gf

    model, tokenizer = gf.load(path)
    done = gf.generate(model, tokenizer, cases.PROMPT[1], max_new_tokens=50, temperature=0.0, use_cache=False)
    return [piece.token for piece in done[0].pieces]


def written(found: Any) -> Any:
    """Of completions in JSON the ids, their probabilities and why each ended."""
    if isinstance(found, dict):
        if "exit" in found:
            return found
        found = [found]
    return [
        {
            "tokens": [piece["token"] for piece in each["pieces"]],
            "probabilities": [piece["probability"] for piece in each["pieces"]],
            "ended": each["finish_reason"],
            "text": each["text"],
        }
        for each in found
    ]


def answers(recorder: Recorder) -> Cases:
    for name, words in cases.ANSWERS.items():
        yield name, recorder.call(*at(recorder, words), "--json")
    import torch

    torch.manual_seed(0)
    ids = torch.randint(3, inputs.VOCABULARY, (2, 7))
    given = {"vit": (torch.randn(2, 3, 16, 16),), "whisper": (torch.randn(2, 8, 32), ids), "bert-vectors": (ids,)}
    for name, features in given.items():
        yield f"{name}, forward", attempt(forward, name, *features)


def forward(name: str, *features: Any) -> list[float]:
    import glassformer as gf

    return list(gf.load(f"inputs/models/{name}")[0](*features).flatten()[::7].tolist())


def at(recorder: Recorder, words: str) -> list[str]:
    """The words of a case: `@name` is the folder of a run, `%name` that of a model of the inputs, `_` a space."""
    found = []
    for word in words.split():
        if word[0] == "@":
            found.append(str(recorder.run(word[1:])))
        else:
            found.append(f"inputs/models/{word[1:]}" if word[0] == "%" else word.replace("_", " "))
    return found


def look(recorder: Recorder) -> Cases:
    for kind, (model, text) in cases.LOOKED_AT.items():
        for view in cases.VIEWS:
            words = view.replace("TEXT", text.replace(" ", "_"))
            name, _, rest = words.partition(" ")
            yield f"{kind}: {view}", recorder.call("look", name, *at(recorder, f"{model} {rest}"), "--json")
    for words in cases.MORE_VIEWS:
        yield words, recorder.call("look", *at(recorder, words), "--json")
    yield from inside(recorder)


def inside(recorder: Recorder) -> Cases:
    """The same from Python: what a trace holds, an edit and an ablation."""
    import torch

    import glassformer as gf

    model, tokenizer = gf.load(recorder.run("shakespeare-fast"))
    ids = torch.tensor([tokenizer.encode(cases.PROMPT[1])])
    with torch.inference_mode():
        with gf.trace(model, "*") as seen:
            logits = model(ids)
        yield "trace", {name: [float(seen[name].double().norm()), *seen[name].shape] for name in sorted(seen)}
        with gf.ablate(model, "blocks.0.attention.*"):
            yield "ablate", (model(ids) - logits).flatten()[::13].tolist()
        with gf.edit(model, "blocks.1.*", lambda name, tensor: tensor * 1.5):
            yield "edit", (model(ids) - logits).flatten()[::13].tolist()
    yield "next_token", recorder.plain(gf.next_token(model, tokenizer, cases.PROMPT[1], seed=3).to_dict())
    yield "surprise", recorder.plain(gf.surprise(model, tokenizer, cases.PROMPT[1]).to_dict())


def plan(recorder: Recorder) -> Cases:
    for name, words in cases.PLANS.items():
        found = recorder.call("plan", *words.split(), "--no-probe", "--json")
        for key in cases.OF_THE_MACHINE_IN_PLANS if "--device-flops" not in words and "exit" not in found else ():
            found.pop(key, None)
        found.get("memory_bytes", {}).pop("libraries", None), found.get("memory_bytes", {}).pop("peak", None)
        yield name, found


def evaluate(recorder: Recorder) -> Cases:
    for name, words in cases.EVALUATED.items():
        yield name, recorder.call(*at(recorder, words), "--json")


def ids_of(folder: str) -> list[int]:
    import glassformer as gf

    return list(gf.load_tokenizer(folder).encode(cases.SAMPLE))


def data(recorder: Recorder) -> Cases:
    for kind, words in cases.TOKENIZERS.items():
        found = recorder.call("data", "prepare", *words.split(), "--out", f"stores/{kind}", "--json")
        yield f"prepare {kind}", found
        yield f"ids {kind}", attempt(ids_of, f"stores/{kind}/tokenizer")
    for words in cases.SHOWN:
        yield f"show {words}", recorder.call("data", "show", f"inputs/{words}", "--json")
    for name in inputs.MODELS:
        if name not in inputs.WITHOUT_TEXT:
            yield f"ids {name}", attempt(ids_of, f"inputs/models/{name}")


def saved_again(path: str, folder: Path) -> None:
    import glassformer as gf

    gf.save(folder, *gf.load(path))


def models(recorder: Recorder) -> Cases:
    """inspect, diff, export and import of every family: what stands in the files, and the weights."""
    for name in (*inputs.MODELS, *cases.SAVED):
        path = f"inputs/models/{name}" if name in inputs.MODELS else str(recorder.run(name))
        yield f"inspect {name}", recorder.call("inspect", path, "--json")
        saved = Path("saved") / name
        failed = attempt(saved_again, path, saved)
        files = sorted(p for p in saved.rglob("*.json") if p.name != "tokenizer.json")
        config = {str(p.relative_to(saved)): recorder.plain(json.loads(p.read_text())) for p in files}
        yield f"save {name}", failed or {"files": config, "weights": weights(saved)}
        if name in (*inputs.DECODERS, *cases.SAVED[:1]):
            done = recorder.call("export", path, "--to", "gguf", "--out", f"{name}.gguf")
            yield f"export {name}", done
            if "exit" not in done:
                yield f"import {name}", recorder.call("import", f"{name}.gguf", "--out", f"imported/{name}", "--json")
    for words in cases.COMPARED:
        yield words, recorder.call(*at(recorder, words), "--json")


def history(recorder: Recorder) -> Cases:
    words = "--quick --scale 0.05 --data inputs/play.txt --device cpu --out history --json"
    yield "compare-history", recorder.call("compare-history", *words.split())


PARTS: dict[str, Callable[[Recorder], Cases]] = {
    part.__name__: part for part in (losses, tokens, answers, look, plan, evaluate, data, models, history, chats, serve)
}


def record(out: Path, folder: Path, only: list[str]) -> None:
    recorder = Recorder(out, folder)
    for name in only or PARTS:
        started, found = time.perf_counter(), {}
        for case, value in PARTS[name](recorder):
            found[case] = recorder.plain(value)
        (recorder.out / f"{name}.json").write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
        failed = sum(isinstance(value, dict) and "exit" in value for value in found.values())
        print(f"{name}: {len(found)} cases, {failed} refused, {time.perf_counter() - started:.0f} s", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    recording, comparing = commands.add_parser("record"), commands.add_parser("compare")
    recording.add_argument("out", type=Path)
    recording.add_argument("--inputs", type=Path, required=True)
    comparing.add_argument("a", type=Path)
    comparing.add_argument("b", type=Path)
    for each in (recording, comparing):
        each.add_argument("--only", nargs="+", choices=PARTS, default=[])
    given = parser.parse_args()
    if given.command == "record":
        record(given.out, given.inputs, given.only)
        return 0
    from differences import compare

    return compare(given.a, given.b, given.only or list(PARTS))


if __name__ == "__main__":
    sys.exit(main())
