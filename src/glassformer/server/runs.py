"""Training runs over HTTP: their figures as they grow, and their checkpoints as models.

GET /api/runs          every run: its state, its steps, its score, its checkpoints
GET /api/runs/NAME     the figures of its report, as `figures.to_json` describes them; 304 while nothing new is written;
                       ?save=html, csv: the report, or all its numbers
GET /api/runs/compare/figures?run=A&run=B   runs beside each other

A checkpoint is a model of its own, NAME@STEP. It is opened when a request names it.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from fastapi import Request as HTTPRequest
from fastapi.responses import JSONResponse

from glassformer.errors import did_you_mean
from glassformer.figures import Figure, to_csv, to_json
from glassformer.server.middleware import APIError
from glassformer.server.saving import file_response
from glassformer.server.worker import ModelHandle
from glassformer.training import RunFolder
from glassformer.training.compare_figures import comparison_figures
from glassformer.training.formats import finite_number
from glassformer.training.report import headline, report_html, sections
from glassformer.training.report_figures import score_chart
from glassformer.training.run_history import RunHistory

MOST_OPEN = 3  # checkpoints, the last ones used
MOST_COMPARED = 8


class Runs:
    """The runs in folders that were named: each a run, or a folder of runs, which is read again each time."""

    def __init__(self, folders: Sequence[Path] = ()):
        self.folders = folders

    def by_name(self) -> dict[str, RunFolder]:
        """Every run; of two with one name the first."""
        found: dict[str, RunFolder] = {}
        for folder in self.folders:
            for file in [folder / "recipe.toml", *sorted(folder.glob("*/recipe.toml"))]:
                if file.is_file():
                    found.setdefault(file.parent.resolve().name, RunFolder(file.parent))
        return found

    def find(self, name: str) -> RunFolder:
        """
        Raises:
            APIError: there is none of this name.
        """
        known = self.by_name()
        if name not in known:
            raise APIError(404, f"there is no run {name!r}; {did_you_mean(name, known)}", code="run_not_found")
        return known[name]


def checkpoints_of(run: RunFolder) -> list[int]:
    """The steps of the checkpoints that hold a model, ascending."""
    folders = run.checkpoints.glob("step-*/model/config.json")
    names = [re.fullmatch(r"step-(\d+)", file.parent.parent.name) for file in folders]
    return sorted(int(name[1]) for name in names if name)


class ServedModels(Mapping[str, ModelHandle]):
    """Models by their names, and checkpoints of runs by NAME@STEP, which are opened when they are asked for and are not
    listed. At most `MOST_OPEN` of them stay open.

    open_checkpoint: (its folder, its name) -> a handle; None: checkpoints are not served.
    """

    def __init__(
        self,
        models: Mapping[str, ModelHandle],
        runs: Runs,
        open_checkpoint: Callable[[str, str], ModelHandle] | None = None,
    ):
        self.models, self.runs, self.open_checkpoint = models, runs, open_checkpoint
        self._open: OrderedDict[str, ModelHandle] = OrderedDict()
        self._adopted: dict[str, ModelHandle] = {}
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[str]:
        return iter(self.models)

    def __len__(self) -> int:
        return len(self.models)

    def __contains__(self, name: object) -> bool:
        return name in self.models or (isinstance(name, str) and self._folder(name) is not None)

    def __getitem__(self, name: str) -> ModelHandle:
        if name in self.models:
            return self.models[name]
        folder = self._folder(name)
        if folder is None or self.open_checkpoint is None:
            raise KeyError(name)
        with self._lock:
            if name not in self._open:
                self._open[name] = self.open_checkpoint(str(folder), name)
            self._open.move_to_end(name)
            if len(self._open) > MOST_OPEN:
                _, oldest = self._open.popitem(last=False)
                if oldest.worker is not None:
                    threading.Thread(target=oldest.worker.stop, daemon=True).start()  # it finishes what it writes
            return self._open[name]

    def adopt(self, name: str) -> None:
        """Serve the model of a run that was trained meanwhile."""
        run = self.runs.by_name().get(name)
        if run is not None and self.open_checkpoint is not None and isinstance(self.models, dict):
            handle = self.open_checkpoint(str(run.path), name)
            with self._lock:
                self._adopted[name] = self.models[name] = handle

    def close(self) -> None:
        """End the checkpoints' threads."""
        for handle in (*self._open.values(), *self._adopted.values()):
            if handle.worker is not None:
                handle.worker.stop()

    def _folder(self, name: str) -> Path | None:
        """The folder of a checkpoint."""
        parts = re.fullmatch(r"(.+)@(\d{1,12})", name)
        run = self.runs.by_name().get(parts[1]) if parts and self.open_checkpoint else None
        if run is None or parts is None:
            return None
        folder = run.checkpoints / f"step-{int(parts[2]):06}"
        return folder if (folder / "model" / "config.json").is_file() else None


def run_routes(runs: Runs) -> APIRouter:
    """The paths under `/api/runs`."""
    routes = APIRouter(prefix="/api/runs")

    @routes.get("")
    def list_runs() -> Any:
        """Every run, the last written first."""
        found = [(_last_written(run), name, run) for name, run in runs.by_name().items()]
        return {"runs": [_summary(name, run) for _, name, run in sorted(found, key=lambda entry: -entry[0])]}

    @routes.get("/compare/figures")
    def compared(run: Annotated[list[str], Query(min_length=2, max_length=MOST_COMPARED)]) -> Any:
        """Several runs beside each other, as figures."""
        return {"figures": to_json(comparison_figures([runs.find(name).path for name in run]))}

    @routes.get("/{name}")
    def one_run(name: str, http: HTTPRequest, save: Literal["html", "csv"] | None = None) -> Response:
        """What the report shows of a run, finished or not; save: as a file, the report or all numbers."""
        run = runs.find(name)
        if save == "html":
            return file_response(report_html(RunHistory(run)), name, save)
        headers = {"ETag": _tag(run), "Cache-Control": "private, no-cache"}
        if http.headers.get("if-none-match") == headers["ETag"]:
            return Response(status_code=304, headers=headers)
        h = RunHistory(run)
        parts = [("", "", _charts(h)), *sections(h)]
        if save == "csv":
            return file_response(to_csv([figure for _, _, some in parts for figure in some]), name, save)
        drawn = [{"title": title, "note": note, "figures": to_json(some)} for title, note, some in parts if some]
        facts = [{"name": label, "text": text} for _, label, text in headline(h)]
        return JSONResponse({**_summary(name, run, h), "headline": facts, "sections": drawn}, headers=headers)

    return routes


def _charts(h: RunHistory) -> list[Figure]:
    chart = score_chart(h)
    return [] if chart is None else [chart]


def _summary(name: str, run: RunFolder, h: RunHistory | None = None) -> dict[str, Any]:
    h = h or RunHistory(run, every_step=False)
    return {
        "name": name,
        "state": h.state,
        "steps": h.steps_done,
        "steps_asked": h.steps_asked,
        "score": h.score.words,
        "value": finite_number(h.best[h.score.name]),
        "checkpoints": checkpoints_of(run),
    }


def _files(run: RunFolder) -> list[Path]:
    return [*run.logs, run.events, run.plan, run.summary, run.recipe, run.checkpoints]


def _last_written(run: RunFolder) -> float:
    return max((file.stat().st_mtime for file in _files(run) if file.exists()), default=0.0)


def _tag(run: RunFolder) -> str:
    """Changes whenever a file of the run does."""
    stats = [file.stat() if file.exists() else None for file in _files(run)]
    return '"' + "-".join("" if s is None else f"{s.st_size:x}.{s.st_mtime_ns:x}" for s in stats) + '"'
