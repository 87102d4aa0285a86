"""All lessons as one notebook, made from the same files: nothing is written twice.

A docstring becomes text, each class or function a cell of its own, and each lesson ends with a cell that runs it.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

from glassformer.errors import MissingExtraError
from glassformer.files import write_text
from glassformer.lessons.runner import LESSONS, TRANSLATION, code_of, words_of

MESSAGES = Path(__file__).resolve().parent / "attention_as_messages.py"
OPENING = """# From a table of pairs to a GPT

Ten small files of `glassformer.lessons`, one after the other. They repeat each other on purpose: each can be run
without those before it. `steps` in the last cell of a lesson is how long it trains."""
READ_THE_TEXT = """from glassformer.lessons.runner import read_pairs, read_text

text = read_text(None)  # Tiny Shakespeare; or the path of a text file of your own
print(text[:100])"""


def write_notebook(path: str | Path) -> None:
    """Write the notebook as an .ipynb file (format 4).

    Raises:
        MissingExtraError: nbformat is not installed.
    """
    try:
        import nbformat
    except ImportError:
        raise MissingExtraError("writing a notebook", "notebook") from None
    notebook = as_notebook(nbformat)
    nbformat.validate(notebook)
    write_text(Path(path), nbformat.writes(notebook) + "\n")


def as_notebook(nbformat: Any) -> Any:
    """The notebook as nbformat's own object. Cells have fixed names, so that the same lessons give the same file."""
    new = nbformat.v4
    cells = [new.new_markdown_cell(OPENING), new.new_code_cell(READ_THE_TEXT)]
    for number in LESSONS:
        words = words_of(number)
        cells.append(new.new_markdown_cell(f"## Lesson {number}: {words.title}\n\n{words.idea}\n\n*{words.change}*"))
        cells += [new.new_code_cell(source) for source in pieces(code_of(LESSONS[number]))]
        learned = "read_pairs(None)" if number == TRANSLATION else "text"
        cells.append(new.new_code_cell(f"main({learned}, steps=STEPS)"))
    title, _, idea = (ast.get_docstring(ast.parse(MESSAGES.read_text(encoding="utf-8"))) or "").partition("\n\n")
    cells.append(new.new_markdown_cell(f"## {title.rstrip('.')}\n\n{idea}"))
    cells += [new.new_code_cell(source) for source in pieces(code_of(MESSAGES))]
    cells.append(new.new_code_cell("main()"))
    for n, cell in enumerate(cells):
        cell["id"] = f"cell-{n}"
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return new.new_notebook(cells=cells, metadata={"kernelspec": kernel, "language_info": {"name": "python"}})


def pieces(code: str) -> list[str]:
    """A file cut at its top-level classes and functions; the part that runs it as a program is left out."""
    lines, cuts = code.splitlines(), [0]
    for node in ast.parse(code).body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            cuts += [first - 1, node.end_lineno or node.lineno]
        elif isinstance(node, ast.If):  # if __name__ == "__main__"
            lines = lines[: node.lineno - 1]
    found = ["\n".join(lines[a:b]).strip("\n") for a, b in zip(cuts, [*cuts[1:], len(lines)], strict=True)]
    return [piece for piece in found if piece.strip()]
