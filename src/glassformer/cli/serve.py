"""`glassformer serve`: models behind the HTTP API of OpenAI."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from glassformer.cli import options

if TYPE_CHECKING:
    from pathlib import Path


def serve(
    models: list[str] = typer.Argument(
        metavar="MODEL...", help="Runs, model folders, pulled models, or a folder of runs."
    ),
    host: str = typer.Option(
        "127.0.0.1", metavar="ADDRESS", help="The address to listen on; the default accepts only this machine."
    ),
    port: int = typer.Option(8000, metavar="NUMBER", min=0, max=65535, help="The port; 0: any free one."),
    api_key: str = typer.Option(
        None, metavar="SECRET", envvar="GLASSFORMER_API_KEY", help="The key that clients must send."
    ),
    no_auth: bool = typer.Option(False, "--no-auth", help="Accept requests without a key from other machines."),
    rows: int = typer.Option(32, metavar="N", min=1, max=1024, help="How many texts to generate at once."),
    adapter: list[str] = typer.Option(
        [], metavar="[NAME=]FOLDER", help="A LoRA adapter of the model, served under its own name; repeat for more."
    ),
    router: str = typer.Option(
        None, metavar="MODEL", help='A classifier whose classes are the models; it answers for model "auto".'
    ),
    train: bool = typer.Option(False, "--train", help="Let the page start runs in the (one) folder of runs."),
    rank: str = typer.Option(None, metavar="PROMPTS", help="Prompts whose answers people rank on the page."),
    pairs: str = typer.Option(None, metavar="FILE", help="Where their choices go, a .jsonl file that is continued."),
    answers: int = typer.Option(2, min=2, max=4, metavar="N", help="Answers to each of these prompts: 2 to 4."),
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
) -> None:
    """Serve models over the HTTP API of OpenAI, and a web page.

    Examples:

    glassformer serve smollm2-135m-instruct

    glassformer serve runs/ --port 8080

    glassformer serve runs/ --train

    glassformer serve smollm2-135m-instruct --rank prompts.jsonl --pairs pairs.jsonl

    glassformer serve smollm2-135m-instruct --adapter formal=runs/formal --adapter short=runs/short

    glassformer serve runs/law runs/films --router runs/router

    curl http://127.0.0.1:8000/v1/models
    """
    from pathlib import Path

    from glassformer.errors import MissingExtraError, UsageError
    from glassformer.threads import set_threads
    from glassformer.training import choose_device

    try:
        import fastapi
        import prometheus_client
        import uvicorn
    except ImportError:
        raise MissingExtraError("the server", "serve") from None
    assert fastapi and prometheus_client and uvicorn
    from glassformer.server import app
    from glassformer.server.ranking import Ranking
    from glassformer.server.router import AUTO, open_router
    from glassformer.server.runs import Runs

    app.check_address(host, api_key, no_auth)
    train_in = _folder_of_runs(models) if train else None
    if (rank is None) != (pairs is None):
        raise UsageError("--rank PROMPTS and --pairs FILE.jsonl belong together; give both")
    ranking = None if rank is None else Ranking(rank, Path(pairs), answers)
    sockets = app.bind(host, port)  # before the models are read, which takes a while
    set_threads()
    engine: dict[str, Any] = {"device": choose_device(device), "dtype": dtype, "max_rows": rows}
    models_by_name = app.open_models(models, adapters=adapter, may_be_empty=train, **engine)
    chooser = None if router is None else open_router(router, models_by_name, device=choose_device(device))
    for handle in models_by_name.values():
        typer.echo(f"{handle.name}: {handle.use}")
        if handle.worker is not None:
            cache = handle.worker.engine.cache
            typer.echo(f"  cache: at most {cache.max_bytes / 2**20:,.0f} MiB, {rows} texts at once")
            if handle.defaults:
                shown = ", ".join(f"{name} {value:g}" for name, value in handle.defaults.items())
                typer.echo(f"  defaults from its folder: {shown}")
    if chooser is not None:
        typer.echo(f"{AUTO}: {' or '.join(chooser.labels)}, as {router} chooses")
    address = app.listen(sockets, host)
    typer.echo(f"listening on {address}/v1, web page: {address}/   (Ctrl-C stops the server)")

    def open_checkpoint(folder: str, name: str) -> app.ModelHandle:
        return app.open_model(folder, name, **engine)[name]

    runs = Runs([Path(path) for path in models])
    app.serve(
        models_by_name,
        router=chooser,
        runs=runs,
        open_checkpoint=open_checkpoint,
        train_in=train_in,
        ranking=ranking,
        host=host,
        api_key=api_key,
        sockets=sockets,
    )


def _folder_of_runs(models: list[str]) -> Path:
    """The folder among these in which the page starts runs.

    Raises:
        UsageError: there is none, or there are several.
    """
    from pathlib import Path

    from glassformer.errors import UsageError

    folders = [
        Path(each)
        for each in models
        if (Path(each).is_dir() or each.endswith("/"))
        and not any((Path(each) / name).exists() for name in ("config.json", "recipe.toml", "model/config.json"))
    ]
    if len(folders) != 1:
        raise UsageError(
            "--train makes runs in a folder of runs; name one, for example: glassformer serve runs/ --train"
        )
    return folders[0]
