"""Training that the page starts: one run at a time, each a process of its own (`glassformer train`).

GET  /api/recipes                       the built-in recipes, and whether training is allowed here
GET  /api/recipes/NAME                  its form: a JSON schema of the settings
POST /api/plan                          recipe, settings -> figures of what it would cost
GET  /api/train                         the run under way, and why the last one failed
POST /api/train                         recipe, settings -> the name of the run that began
POST /api/train/RUN/ACTION              pause, proceed, stop (saves), resume

Only `glassformer serve FOLDER --train` allows the last two, only for pages of this server, and only settings that are
numbers and choices: nothing that names a file.
"""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from fastapi import Request as HTTPRequest
from pydantic import Field
from starlette.concurrency import run_in_threadpool

from glassformer.errors import UsageError, one_line
from glassformer.figures import Column, Figure, Note, Table, to_json
from glassformer.recipes.form import recipe_form, words_of
from glassformer.recipes.plan import Plan, plan
from glassformer.recipes.reading import builtin_recipes
from glassformer.server.middleware import APIError
from glassformer.server.schemas import Body
from glassformer.training import RunFolder
from glassformer.training.formats import count, decimal, duration, size

STOP_SECONDS = 20  # that a run has to save itself when the server is stopped
Action = Literal["pause", "proceed", "stop", "resume"]


class TrainBody(Body):
    """`POST /api/plan`, `POST /api/train`: settings by `section.key`, as the recipe's form describes them."""

    recipe: Annotated[str, Field(max_length=100)]
    settings: Annotated[dict[str, bool | int | float | str], Field(max_length=100)] = Field(default_factory=dict)


class Training:
    """The run that the page started, as a child process.

    Args:
        folder: where runs are made. finished(name): a run ended well.
    """

    def __init__(self, folder: Path, finished: Callable[[str], None] = lambda name: None):
        self.folder, self.finished = folder, finished
        self.name: str | None = None  # of the last run that was started
        self.error: str | None = None  # why it ended, in a line
        self._process: subprocess.Popen[bytes] | None = None
        self._paused = False
        self._lock = threading.Lock()

    @property
    def state(self) -> str | None:
        """running, paused, or None."""
        if self._process is None or self._process.poll() is not None:
            return None
        return "paused" if self._paused else "running"

    def to_dict(self) -> dict[str, Any]:
        """The run of this page, for it: name, state and error."""
        return {"run": self.name, "state": self.state, "error": self.error}

    def start(self, recipe: str, settings: dict[str, Any]) -> str:
        """The name of the run that begins."""
        words = words_of(recipe, settings)
        with self._lock:
            self._check_free()
            out = RunFolder.next_free(self.folder, recipe)
            self._begin(["train", recipe, *words, "--out", str(out), "--quiet"], out.name)
        return out.name

    def act(self, name: str, action: Action) -> None:
        """Pause, proceed or stop the run that is under way; resume one that was stopped.

        Raises:
            APIError: it is not under way, or another one is.
        """
        if action == "resume":
            run = RunFolder.open(self.folder / name)
            with self._lock:
                self._check_free()
                self._begin(["resume", str(run.path), "--quiet"], name)
            return
        process = self._process
        if process is None or self.name != name or self.state is None:
            raise APIError(409, f"{name} is not being trained from this page; there is nothing to {action}")
        if action in ("pause", "proceed"):
            self._paused = action == "pause"
            process.send_signal(signal.SIGSTOP if self._paused else signal.SIGCONT)
        else:
            self._stop(process)

    def close(self) -> None:
        """Let a running run save itself, and wait for that."""
        if (process := self._process) is None or process.poll() is not None:
            return
        self._stop(process)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)

    def _stop(self, process: subprocess.Popen[bytes]) -> None:
        process.send_signal(signal.SIGTERM)  # the loop ends at the next safe place, and saves
        if self._paused:
            process.send_signal(signal.SIGCONT)
            self._paused = False

    def _check_free(self) -> None:
        if self.state is not None:
            raise APIError(409, f"{self.name} is {self.state}; stop it before another run begins", code="busy")

    def _begin(self, words: Sequence[str], name: str) -> None:
        self.name, self.error, self._paused = name, None, False
        self._process = subprocess.Popen(
            [sys.executable, "-m", "glassformer", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C reaches the server, which lets the run save itself
        )
        threading.Thread(target=self._watch, args=(self._process, name), daemon=True).start()

    def _watch(self, process: subprocess.Popen[bytes], name: str) -> None:
        _, said = process.communicate()
        lines = said.decode("utf-8", "replace").strip().splitlines()
        if process.returncode == 0:
            self.finished(name)
        elif lines and "glassformer resume" not in lines[-1]:  # that is what a run says that was stopped
            self.error = one_line(lines[-1])


def training_routes(training: Training | None) -> APIRouter:
    """The paths of this module; None: recipes and plans are shown, and nothing is trained."""
    routes = APIRouter(prefix="/api")

    @routes.get("/recipes")
    def list_recipes() -> Any:
        """Every built-in recipe of one stage: its name, and what it trains."""
        texts = {name: path.read_text("utf-8") for name, path in builtin_recipes().items()}
        named = [
            {"name": name, "what": text.splitlines()[0].lstrip("# ")}
            for name, text in texts.items()
            if not re.search(r"^\[+stage", text, re.MULTILINE)
        ]
        return {"recipes": named, "trains": training is not None}

    @routes.get("/recipes/{name}")
    def one_recipe(name: str) -> Any:
        """The form of a recipe."""
        return {"name": name, "form": recipe_form(name)}

    @routes.post("/plan")
    def make_plan(body: TrainBody) -> Any:
        """What a run would cost on this machine, by arithmetic."""
        try:
            made = plan(body.recipe, words_of(body.recipe, body.settings), probing=False)
        except UsageError as error:
            if "are counted for decoders" not in str(error):
                raise
            return {"figures": to_json([Note("Of this task no cost can be counted: it shows when it runs.")])}
        return {"figures": to_json(plan_figures(made))}

    @routes.get("/train")
    def trained() -> Any:
        """The run that this page started last; null where it may start none."""
        return training.to_dict() if training is not None else None

    @routes.post("/train")
    async def train(body: TrainBody, http: HTTPRequest) -> Any:
        """Begin a run."""
        name = await run_in_threadpool(_allowed(http, training).start, body.recipe, body.settings)
        return {"run": name}

    @routes.post("/train/{run}/{action}")
    async def act(run: str, action: Action, http: HTTPRequest) -> Any:
        """Pause, proceed, stop or resume a run."""
        allowed = _allowed(http, training)
        if not re.fullmatch(r"[\w.@-]+", run) or run.startswith("."):
            raise APIError(404, f"there is no run {run!r}")
        await run_in_threadpool(allowed.act, run, action)
        return {"run": run, "state": allowed.state}

    return routes


def _allowed(http: HTTPRequest, training: Training | None) -> Training:
    """
    Raises:
        APIError: training was not allowed, or another site's page asks for it.
    """
    origin = http.headers.get("origin")
    if origin is not None and origin.partition("://")[2] != http.headers.get("host"):
        raise APIError(403, "only a page of this server may train", code="other_origin")
    if training is None:
        raise APIError(403, "training is not allowed here; start the server with: glassformer serve runs/ --train")
    return training


def plan_figures(p: Plan) -> list[Figure]:
    """What a run is predicted to cost, as a table and notes."""
    interval = "" if p.val_loss_interval is None else " to ".join(decimal(end, 2) for end in p.val_loss_interval)
    rows = [
        ("parameters", count(p.parameters), ""),
        ("time", duration(p.seconds), f"{count(p.steps)} steps on {p.machine.name}"),
        ("a step", duration(p.seconds_per_step), f"{count(p.tokens_per_step)} tokens"),
        ("memory", size(p.memory_bytes["peak"]), ""),
        ("validation loss", "–" if p.val_loss is None else decimal(p.val_loss, 2), interval),
    ]
    return [Table("Plan", [Column(""), Column("predicted"), Column("")], rows), *map(Note, p.notes)]
