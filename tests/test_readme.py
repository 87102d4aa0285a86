"""Every command in the README is run, in order, in one folder; long trainings are cut short and nothing else."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import glassformer
from patience import PATIENCE
from skips import Commands

from glassformer.data.espeak import RATE, synthesize
from glassformer.errors import MissingExtraError

__all__ = ["glassformer"]  # a fixture

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SHORT = "training.steps=15 model.n_layer=1"
LACKS = r"^error: (.*(?:needs an optional package|cannot be reached).*)$"  # the machine's lack, not a fault of ours
INSTALLS = ("make ", "python3 -m venv", ".venv/bin/")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    lines = (line.partition("  #")[0].strip() for block in blocks("sh") for line in block.splitlines())
    return [line for line in lines if line]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, own_cache):
    """A newcomer's folder with a text, sentence pairs, a picture and a sound of their own, and `glassformer` on the
    path."""
    place = tmp_path_factory.mktemp("newcomer")
    lines = (f"ROMEO:\nTo be, or not to be, {i} times.\n\nJULIET:\nSpeak, speak again.\n\n" for i in range(60))
    (place / "my.txt").write_text("".join(lines), encoding="utf-8")
    pairs = (json.dumps({"source": f"act {i} scene {j}", "target": f"{j} of {i}"}) for i in range(9) for j in range(9))
    (place / "pairs.jsonl").write_text("\n".join(pairs), encoding="utf-8")
    draw_seven(place / "seven.png")
    speak(place / "talk.flac")
    for name, row in zip(("my", "preferences"), (json.loads(block) for block in blocks("json")), strict=True):
        numbered = (json.dumps(row).replace("you sell", f"you sell at {i}") for i in range(40))
        (place / f"{name}.jsonl").write_text("\n".join(numbered), encoding="utf-8")
    return place


def draw_seven(path: Path) -> None:
    """White on black, as the digits are. Without Pillow the command says what it needs before it opens anything."""
    with contextlib.suppress(ImportError):
        from PIL import Image

        image = Image.new("L", (16, 16))
        image.paste(255, (3, 2, 13, 4))
        image.paste(255, (9, 4, 12, 14))
        image.save(path)


def speak(path: Path) -> None:
    """A sentence, if there is a voice for it."""
    with contextlib.suppress(ImportError, MissingExtraError):
        import soundfile

        (spoken,) = synthesize(["Good morning, and welcome to the meeting."], "en-us", 150)
        soundfile.write(path, spoken.samples_N, RATE)


def run(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path}
    return subprocess.run(
        line, shell=True, cwd=folder, env=environment, capture_output=True, text=True, timeout=PATIENCE
    )


def at_a_console(glassformer, line: str, folder: Path, monkeypatch) -> tuple[int, str, str]:
    """Exit code, output, errors. What needs no shell runs in this process: a start takes longer than most commands."""
    if line.startswith("glassformer "):
        monkeypatch.chdir(folder)
        return glassformer(*shlex.split(line)[1:])
    done = run(line, folder)
    return done.returncode, done.stdout, done.stderr


def shortened(line: str) -> str:
    """The same command with a small model and few steps, where it would train for long."""
    if line.startswith("glassformer tune"):
        return f"{line} training.steps=2 training.sample_tokens=4"
    return f"{line} {SHORT}" if re.search(r"glassformer train", line) else line


def test_the_readme_shows_commands():
    assert len(commands()) > 12 and len(blocks("python")) == 2
    assert "{" not in re.sub(r"```.*?```", "", README, flags=re.DOTALL)  # no gap left to fill in


@pytest.fixture(scope="module")
def in_order() -> Commands:
    return Commands(commands())


@pytest.mark.parametrize("line", [line for line in commands() if not line.startswith(INSTALLS)])
def test_command(line, folder, in_order, shakespeare, glassformer, monkeypatch):
    in_order.needs(line)
    if "resume runs/mine" in line:  # there must be something to go on with: the newest checkpoint but one
        checkpoints = sorted((folder / "runs/mine/checkpoints").iterdir())
        assert len(checkpoints) > 1
        shutil.rmtree(checkpoints[-1])
    code, out, err = at_a_console(glassformer, shortened(line), folder, monkeypatch)
    if code and (lacks := re.search(LACKS, err, flags=re.MULTILINE)):
        pytest.skip(lacks[1])
    assert code == 0, err
    assert "Traceback" not in err
    assert out.strip()
    in_order.succeeded(line)


@pytest.mark.parametrize("code", blocks("python"))
def test_python(code, folder, in_order):
    in_order.needs(code)
    done = run(f"{shlex.quote(sys.executable)} -c {shlex.quote(code)}", folder)
    assert done.returncode == 0, done.stderr


def test_make_demo(shakespeare, tmp_path):
    """`make demo` in this very checkout, cut short; `make test` is what runs this test."""
    if not (ROOT / ".venv" / "core").exists():
        pytest.skip("this checkout was not installed by make")
    done = run(f'make --no-print-directory demo ARGS="--out {tmp_path}/demo {SHORT.split()[0]}"', ROOT)
    assert done.returncode == 0, done.stderr
    assert "validation loss" in done.stdout and f"{tmp_path}/demo" in done.stdout
    sample = done.stdout.split("validation loss")[0].strip()
    assert len(sample) > 400
    tries = [line.strip() for line in done.stdout.split("try next:")[1].strip().splitlines()]
    assert len(tries) == 3
    for line in tries[:2]:
        assert run(line, tmp_path).returncode == 0


@pytest.mark.slow
def test_the_plain_pip_lines(tmp_path, shakespeare):
    """The lines for those without make, in a clean clone."""
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
    lines = next(block for block in blocks("sh") if "python3 -m venv" in block).splitlines()
    for line in lines[:-1]:
        done = subprocess.run(line, shell=True, cwd=clone, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    done = run(f"{lines[-1]} {SHORT.split()[0]}", clone)
    assert done.returncode == 0, done.stderr
