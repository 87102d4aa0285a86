"""Rows of .csv and .tsv files by the names of their columns, with the place of each for messages."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from glassformer.data.json_lines import numbered_lines
from glassformer.errors import DataError

DELIMITERS = {".csv": ",", ".tsv": "\t"}


def table_rows(path: Path, longest: int) -> Iterator[tuple[str, int, dict[str, str]]]:
    """(file and line, line, cell by column) of each row. The first line names the columns; empty lines are passed over.

    Args:
        longest: bytes of a line.

    Raises:
        DataError: two columns have one name, or one has none; a row has more or fewer cells; a line is damaged.
    """
    lines = csv.reader(
        (line + "\n" for _, line in numbered_lines(path, longest)), delimiter=DELIMITERS[path.suffix.lower()]
    )
    header: list[str] | None = None
    try:
        for row in lines:
            where = f"{path}:{lines.line_num}"
            if not any(cell.strip() for cell in row):
                continue
            if header is None:
                header = [cell.strip() for cell in row]
                if len(set(header)) != len(header) or not all(header):
                    raise DataError(f"{where}: the first line names the columns, each by another name; mend it")
                continue
            if len(row) != len(header):
                raise DataError(f"{where}: {len(row)} cells and {len(header)} columns; mend the line")
            yield where, lines.line_num, {name: cell.strip() for name, cell in zip(header, row, strict=True)}
    except csv.Error as error:
        raise DataError(f"{path}:{lines.line_num}: {error}; mend the line") from None
