"""The server: the models it opens, one application of all routes, page and metrics, the sockets it listens on.

/v1/...     OpenAI's API (openai.py)        /healthz    whether every model can answer
/api/...    looking inside (inspect.py)     /metrics    counts for Prometheus
/           the page that uses them, plain files from web/
"""

from __future__ import annotations

import errno
import logging
import mimetypes
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import torch
import uvicorn
from fastapi import FastAPI, Response
from fastapi.responses import FileResponse, JSONResponse
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.concurrency import run_in_threadpool
from starlette.staticfiles import StaticFiles

from glassformer import __version__
from glassformer.errors import GlassformerError, UsageError
from glassformer.hub.loading import load_with_adapters
from glassformer.server.inspect import inspect_routes
from glassformer.server.middleware import Guard, add_error_handlers, is_local
from glassformer.server.openai import openai_routes
from glassformer.server.ranking import Ranking, rank_routes
from glassformer.server.router import Router
from glassformer.server.runs import Runs, ServedModels, run_routes
from glassformer.server.training import Training, training_routes
from glassformer.server.transcriptions import transcription_routes
from glassformer.server.worker import ModelHandle, Worker

WEB = Path(__file__).with_name("web")
WAITING_CONNECTIONS = 2048  # made and not yet accepted
DRAIN_SECONDS = 30  # for running answers when the server is stopped


def open_models(
    paths: Sequence[str],
    *,
    device: str,
    dtype: str,
    adapters: Sequence[str] = (),
    may_be_empty: bool = False,
    **engine: Any,
) -> dict[str, ModelHandle]:
    """The models at these paths by their names; a folder of runs gives all of its runs.

    adapters: NAME=FOLDER or FOLDER, LoRA adapters of the one model at `paths`; each is a model of its own, which shares
    the weights. may_be_empty: a folder without runs is one in which some will be made.

    Raises:
        UsageError: none, or two of the same name; adapters of several models. ModelFolderError, TokenizerError: as
            `load`.
    """
    found: dict[str, ModelHandle] = {}
    named = adapter_names(adapters)
    for path in paths:
        folder = Path(path)
        runs = sorted(entry.parent.parent for entry in folder.glob("*/model/config.json"))
        is_model = (folder / "config.json").is_file() or (folder / "model" / "config.json").is_file()
        if may_be_empty and not is_model and not runs and (folder.is_dir() or not folder.exists()):
            continue
        for each in [path] if is_model or not runs else map(str, runs):
            name = Path(each).name if Path(each).exists() else each
            if name in found:
                raise UsageError(f"{each}: another model is called {name} already; serve one of the two")
            if found and named:
                raise UsageError("--adapter belongs to one model, and several were given; name the one that it adapts")
            if name in named:
                raise UsageError(f"--adapter {name}={named[name]}: the model has this name; choose another one")
            found |= open_model(each, name, named, device=device, dtype=dtype, **engine)
    if not found and not may_be_empty:
        raise UsageError("no model to serve; name one, for example: glassformer serve smollm2-135m-instruct")
    return found


def open_model(
    path: str, name: str, adapters: Mapping[str, str] | None = None, *, device: str, dtype: str, **engine: Any
) -> dict[str, ModelHandle]:
    """A model under its name, and its adapters under theirs.

    Raises:
        ModelFolderError, TokenizerError: as `load`.
    """
    base, adapted = load_with_adapters(path, adapters or {}, device=device, dtype=dtype)
    return {
        served: ModelHandle(served, bundle.model, bundle.tokenizer, bundle.source_processor, bundle=bundle, **engine)
        for served, bundle in {name: base, **adapted}.items()
    }


def adapter_names(adapters: Sequence[str]) -> dict[str, str]:
    """Folders by the names under which they are served: NAME=FOLDER, or FOLDER, named after itself or its run.

    Raises:
        UsageError: two have the same name.
    """
    found: dict[str, str] = {}
    for entry in adapters:
        name, given, folder = entry.partition("=")
        if not given or Path(entry).exists():
            folder, path = entry, Path(entry).resolve()
            name = path.parent.name if path.name == "adapter" else path.name
        if not name or name in found:
            raise UsageError(f"--adapter {entry}: two adapters would be called {name!r}; write --adapter NAME=FOLDER")
        found[name] = folder
    return found


def create_app(
    models: Mapping[str, ModelHandle],
    *,
    router: Router | None = None,
    runs: Runs | None = None,
    open_checkpoint: Callable[[str, str], ModelHandle] | None = None,
    train_in: Path | None = None,
    ranking: Ranking | None = None,
    api_key: str | None = None,
    local: bool = True,
) -> FastAPI:
    """The application for these models by name; a request without a model's name uses the first one.

    Args:
        runs: training runs that the page shows. open_checkpoint: as of `ServedModels`. train_in: the folder in which
            the page may start runs; None: it may not. ranking: what people may rank on the page.
        router: chooses the model of requests to "auto" and of those without a name.
        api_key: what clients must send as `Authorization: Bearer KEY`; None: nothing.
        local: bound to this machine only: requests under another host's name (DNS rebinding) are refused.
    """
    workers = {name: handle.worker for name, handle in models.items() if handle.worker is not None}
    runs = runs or Runs()
    served = ServedModels(models, runs, open_checkpoint)
    training = None if train_in is None else Training(train_in, served.adopt)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        if training is not None:
            await run_in_threadpool(training.close)
        await run_in_threadpool(served.close)
        for worker in workers.values():
            await run_in_threadpool(worker.stop)

    app = FastAPI(title="glassformer", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.add_middleware(Guard, api_key=api_key, local=local)
    add_error_handlers(app)
    app.include_router(openai_routes(models, router))
    app.include_router(transcription_routes(models))
    app.include_router(inspect_routes(served))
    app.include_router(run_routes(runs))
    app.include_router(training_routes(training))
    app.include_router(rank_routes(served, ranking))

    @app.get("/healthz")
    async def healthz() -> Response:
        """Whether every model can answer."""
        if all(worker.running for worker in workers.values()):
            return JSONResponse({"status": "ok"})
        return JSONResponse({"status": "failed"}, status_code=503)

    registry = CollectorRegistry()
    registry.register(ModelMetrics(workers, router))

    @app.get("/metrics")
    async def metrics() -> Response:
        """Counts for Prometheus."""
        return Response(generate_latest(registry), media_type="text/plain; version=0.0.4")

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return FileResponse(WEB / "index.html", headers={"Cache-Control": "no-cache"})

    mimetypes.add_type("text/javascript", ".js")  # some systems map it to another type, and then no module runs
    drawing: list[str | tuple[str, str]] = [
        ("glassformer.figures", "web")
    ]  # figures are drawn by the same modules here, in files and in notebooks
    app.mount("/web", FreshFiles(directory=WEB, packages=drawing), name="web")
    return app


class FreshFiles(StaticFiles):
    """Files that a browser requests again whenever the page is opened, so that a new release shows its new page."""

    def file_response(self, *args: object, **kwargs: object) -> Response:
        response = super().file_response(*args, **kwargs)  # type: ignore[arg-type]
        response.headers["Cache-Control"] = "no-cache"
        return response


COUNTERS = {
    "requests": "Requests accepted",
    "cancelled": "Requests cancelled before they were done",
    "failed": "Requests that ended with an error",
    "prompt_tokens": "Tokens of prompts",
    "completion_tokens": "Tokens written",
}
GAUGES: dict[str, tuple[str, Callable[[Worker], float]]] = {
    "rows_active": ("Samples being read or written", lambda worker: len(worker.engine.active)),
    "rows_waiting": ("Samples that wait for a row", lambda worker: len(worker.engine.waiting)),
    "cache_bytes": ("Memory of the key-value cache", lambda worker: worker.engine.cache.n_bytes),
    "cache_max_bytes": ("Its largest size", lambda worker: worker.engine.cache.max_bytes),
}


class ModelMetrics(Collector):
    """`COUNTERS` and `GAUGES` of each model that generates, and how many requests a router gave it."""

    def __init__(self, workers: Mapping[str, Worker], router: Router | None = None):
        self.workers, self.router = workers, router

    def collect(self) -> Iterator[Metric]:
        for name, what in COUNTERS.items():
            counter = CounterMetricFamily(f"glassformer_{name}", what, labels=["model"])
            for model, worker in self.workers.items():
                counter.add_metric([model], worker.counts[name])
            yield counter
        for name, (what, value) in GAUGES.items():
            gauge = GaugeMetricFamily(f"glassformer_{name}", what, labels=["model"])
            for model, worker in self.workers.items():
                gauge.add_metric([model], value(worker))
            yield gauge
        if self.router is not None:
            routed = CounterMetricFamily("glassformer_routed", "Requests that the router sent there", labels=["model"])
            for model in self.router.labels:
                routed.add_metric([model], self.router.routed[model])
            yield routed


class AddressError(GlassformerError):
    """The server cannot listen on an address: its port is in use, or it is not an address of this machine."""


def check_address(host: str, api_key: str | None, no_auth: bool) -> None:
    """Raise `UsageError` for an address that other machines can reach, without a key and without `no_auth`."""
    if not (is_local(host) or api_key or no_auth):
        raise UsageError(
            f"--host {host} can be reached from other machines; add --api-key SECRET, or --no-auth to accept all"
        )


def bind(host: str, port: int) -> list[socket.socket]:
    """Sockets for all addresses of a host name, bound and not yet listening; port 0: any free one.

    Raises:
        AddressError: the port is in use or not allowed, or the name has no address of this machine.
    """
    sockets: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, address in dict.fromkeys(found):
            one = socket.socket(family, kind, protocol)
            sockets.append(one)
            if os.name == "posix":  # elsewhere it would let two servers share a port
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            one.bind((address[0], port or sockets[0].getsockname()[1], *address[2:]))
    except OSError as error:
        for one in sockets:
            one.close()
        raise _address_error(error, host, port) from None
    return sockets


def listen(sockets: Sequence[socket.socket], host: str) -> str:
    """Let clients connect. Returns the address that they use.

    Raises:
        AddressError: another program listens there already.
    """
    port: int = sockets[0].getsockname()[1]
    try:
        for one in sockets:
            one.listen(WAITING_CONNECTIONS)
    except OSError as error:
        raise _address_error(error, host, port) from None
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _address_error(error: OSError, host: str, port: int) -> AddressError:
    free = "choose another one with --port NUMBER, or --port 0 for any that is free"
    if error.errno == errno.EADDRINUSE:
        return AddressError(f"port {port} of {host} is in use by another program; end it, or {free}")
    if error.errno == errno.EACCES:
        return AddressError(f"this user may not listen on port {port}; {free} (1024 or more)")
    reason = (
        "it is not an address of this machine" if error.errno == errno.EADDRNOTAVAIL else error.strerror or str(error)
    )
    return AddressError(f"cannot listen on {host} port {port}: {reason}; use --host 127.0.0.1 for this machine alone")


def serve(
    models: Mapping[str, ModelHandle],
    *,
    router: Router | None = None,
    runs: Runs | None = None,
    open_checkpoint: Callable[[str, str], ModelHandle] | None = None,
    train_in: Path | None = None,
    ranking: Ranking | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    api_key: str | None = None,
    sockets: list[socket.socket] | None = None,
) -> None:
    """Answer until stopped (Ctrl-C, SIGTERM): then running answers are finished, and no new requests are accepted.

    Args:
        runs, open_checkpoint, train_in, ranking: as of `create_app`.
        sockets: of `bind(host, port)`, for callers that have bound them already.

    Raises:
        AddressError: as `bind`.
    """
    torch.set_grad_enabled(False)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    more: dict[str, Any] = {"runs": runs, "open_checkpoint": open_checkpoint, "train_in": train_in, "ranking": ranking}
    app = create_app(models, router=router, api_key=api_key, local=is_local(host), **more)
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=DRAIN_SECONDS, server_header=False)
    uvicorn.Server(config).run(sockets or bind(host, port))
