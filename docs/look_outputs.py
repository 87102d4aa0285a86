"""Update the outputs in docs/views/*.md: `python docs/look_outputs.py`, a few minutes.

Every block of `glassformer look ...` is run, and the block after it is replaced by what was printed (errors too: they
show which view applies to which model). It expects the runs of `glassformer demo`, `train word-vectors`, `train
shakespeare-diffusion` and `train mnist` in `runs/demo-1`, `runs/word-vectors-1`, `runs/shakespeare-diffusion-1` and
`runs/mnist-1`, the prompt `conf-kicked` of the set `prompts` as `kicked.wav`, and fetches the published models.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

PAGES = Path(__file__).resolve().parent / "views"
BLOCK = re.compile(r"```sh\n(glassformer look [^\n]+)\n```\n\n```\n(.*?)```\n", re.DOTALL)


def output(command: str) -> str:
    """What a command prints in a terminal of 80 columns without colours."""
    environment = {**os.environ, "COLUMNS": "80", "NO_COLOR": "1", "PYTHONIOENCODING": "utf-8"}
    words = [sys.executable, "-m", *shlex.split(command)]
    done = subprocess.run(words, capture_output=True, text=True, env=environment, encoding="utf-8")
    lines = (done.stdout + done.stderr).splitlines()
    return "".join(line.rstrip() + "\n" for line in lines)


def main() -> None:
    def update(match: re.Match[str]) -> str:
        print(match[1], file=sys.stderr)
        return f"```sh\n{match[1]}\n```\n\n```\n{output(match[1])}```\n"

    for page in sorted(PAGES.glob("*.md")):
        page.write_text(BLOCK.sub(update, page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
