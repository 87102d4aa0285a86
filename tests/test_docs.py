"""What the pages say in Python is true: every block runs, in order, and what a comment promises comes out."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from glassformer.cli import app
from glassformer.recipes.reading import builtin_recipes, read_recipe

DOCS = Path(__file__).parent.parent / "docs"


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text(), flags=re.S)


def test_the_shapes_on_the_page_come_out(capsys):
    """A line `x.shape  # (2, 10, 65): ...` is compared, the others are run."""
    names: dict[str, Any] = {}
    compared = 0
    for block in blocks("shapes.md", "python"):
        for line in block.splitlines():
            if shown := re.fullmatch(r"(.*\.shape)  # (\([\d, ]+\)).*", line):
                shape = tuple(int(n) for n in re.findall(r"\d+", shown[2]))
                code, expected = compile_expression(shown[1]), torch.Size(shape)
                assert code(names) == expected, line
                compared += 1
            else:
                run(line, names)
    assert compared == 3
    assert capsys.readouterr().out.strip() in (DOCS / "shapes.md").read_text()


def compile_expression(text: str):
    return lambda names: eval(text, names)


def run(line: str, names: dict[str, Any]) -> None:
    exec(line, names)


def test_the_recipes_page_speaks_of_recipes_and_commands_that_exist():
    commands = {command.name or command.callback.__name__ for command in app.registered_commands}
    groups = {group.name for group in app.registered_groups}
    asked = [line for block in blocks("recipes.md", "sh") for line in block.splitlines() if "glassformer" in line]
    assert len(asked) > 10
    for line in asked:
        words = line.split()
        if words[0] != "glassformer":
            continue
        assert words[1] in commands | groups, line
        if words[1] == "train" and not words[2].startswith("-"):
            assert words[2] in builtin_recipes(), line
            read_recipe(words[2], [word for word in words[3:] if "=" in word and "start_from" not in word])


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
    headings = re.findall(r"^#+ (.+)$", text, flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


PAGES = [*DOCS.parent.glob("*.md"), *DOCS.rglob("*.md"), DOCS.parent / "benchmarks" / "README.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS.parent)))
def test_every_relative_link_and_anchor_resolves(page):
    text = re.sub(r"^```.*?^```|`[^`]*`", "", page.read_text(), flags=re.M | re.S)
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not re.match(r"https?://|mailto:", link) and not (
            target.exists() and (not anchor or anchor in anchors(target))
        ):
            broken.append(link)
    assert not broken


def test_the_pages_about_views_show_every_view_of_three_models():
    """Each command with what it printed; what is drawn fits 80 columns. The Python runs in its own test."""
    from glassformer.views import VIEWS

    page = "".join(page.read_text() for page in (DOCS / "views").glob("*.md"))
    shown = re.findall(r"```sh\nglassformer look (\S+) ([^\n]+)\n```\n\n```\n(.*?)```", page, flags=re.S)
    assert {name for name, _, _ in shown} == set(VIEWS)
    for model in ("runs/demo-1", "smollm2-135m-instruct", "minilm-l6"):
        asked = {name for name, words, _ in shown if words.startswith(model)}
        assert len(asked) >= 18, (model, asked)
    guide = (DOCS / "looking-inside.md").read_text()
    for name, words, printed in shown:
        assert f"[`{name}`](views/" in guide
        assert printed.strip() and "Traceback" not in printed, (name, words)
        assert printed.startswith("error: ") or max(map(len, printed.splitlines())) <= 80, (name, words)


def test_the_test_files_that_pages_and_ci_name_exist():
    root = DOCS.parent
    pages = [root / name for name in ("README.md", "CONTRIBUTING.md", "Makefile", ".ci/run")] + [*DOCS.rglob("*.md")]
    named = {name for page in pages for name in re.findall(r"tests/[\w/]+\.py", page.read_text("utf-8"))}
    assert named and not [name for name in sorted(named) if not (root / name).is_file()]
