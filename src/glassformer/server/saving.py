"""Figures as an answer: JSON for the page, or a file to keep."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from fastapi import Response
from starlette.concurrency import run_in_threadpool

from glassformer.figures import Figure, to_csv, to_html, to_json

KINDS = {"html": "text/html; charset=utf-8", "csv": "text/csv; charset=utf-8"}


async def figures_response(figures: Sequence[Figure], name: str, save: str | None, **more: Any) -> Response:
    """The figures with `more` as JSON; or, with `save`, as a file of this kind, called by a name."""

    def answer() -> Response:
        if save is None:
            text = json.dumps({**more, "figures": to_json(figures)}, ensure_ascii=False, allow_nan=False)
            return Response(text.encode("utf-8", "replace"), media_type="application/json")
        return file_response(to_html(figures, name) if save == "html" else to_csv(figures), name, save)

    return await run_in_threadpool(answer)


def file_response(text: str, name: str, kind: str) -> Response:
    """A file to keep; half a character that a text may hold becomes a question mark."""
    file = re.sub(r"[^\w.@-]+", "-", name, flags=re.ASCII).strip("-.") or "figures"
    headers = {"Content-Disposition": f'attachment; filename="{file}.{kind}"'}
    return Response(text.encode("utf-8", "replace"), media_type=KINDS[kind], headers=headers)
