"""Level 10: the command line. A command parses its arguments, calls the library and prints; it holds no other logic.

These modules import typer alone at the top; a command imports the rest when it runs, so that help appears at once.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from typing import Any, NoReturn

import typer

from glassformer.cli import (
    align,
    ask,
    caption,
    chat,
    data,
    diffuse,
    draw,
    evaluate,
    generate,
    lessons,
    look,
    models,
    plan,
    play,
    rank,
    recipes,
    runs,
    say,
    selftest,
    serve,
    train,
    transcribe,
)
from glassformer.cli.startup import fit_streams, start_clock, take_plugins
from glassformer.plugins import bundled_commands

CTRL_C = 130  # what typer returns after Ctrl-C; its older versions raise Abort
OUT_OF_MEMORY = re.compile(r"can't allocate memory|out of memory", re.IGNORECASE)
# typer's base class for wrong use; it is not public, but the public classes inherit from it
CommandLineError: Any = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")

app = typer.Typer(
    help="The Transformer you can train, use and see through.\n\n"
    "Start with: glassformer demo, or glassformer train --data my.txt",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
)
COMMANDS: dict[str, Callable[..., None]] = {
    "demo": train.demo,
    "train": train.train,
    "tune": train.tune,
    "plan": plan.plan,
    "resume": train.resume,
    "generate": generate.generate,
    "translate": ask.translate,
    "classify": ask.classify,
    "predict": ask.predict,
    "tag": ask.tag,
    "caption": caption.caption,
    "transcribe": transcribe.transcribe,
    "say": say.say,
    "fill": ask.fill,
    "diffuse": diffuse.diffuse,
    "draw": draw.draw,
    "play": play.play,
    "evaluate": evaluate.evaluate,
    "pull": models.pull,
    "import": models.import_,
    "export": models.export,
    "inspect": models.inspect,
    "diff": models.diff,
    "chat": chat.chat,
    "rank": rank.rank,
    "serve": serve.serve,
    "selftest": selftest.selftest,
    "lesson": lessons.lesson,
    "lessons": lessons.lessons,
    "align-demo": align.align_demo,
    **bundled_commands(),
    "runs": runs.runs,
    "report": runs.report,
}
for _name, _command in COMMANDS.items():
    app.command(_name)(_command)
app.add_typer(look.app, name="look")
app.add_typer(recipes.app, name="recipes")
app.add_typer(data.app, name="data")


@app.callback(invoke_without_command=True)
def _root(
    version: bool = typer.Option(False, "--version", help="Print the version and stop."),
    plugin: list[str] = typer.Option(
        [], metavar="MODULE", help="Import your own module first; works in every command."
    ),
) -> None:
    if version:
        from glassformer import __version__

        typer.echo(__version__)
        raise typer.Exit()


def main() -> None:
    """The `glassformer` command. Exit code 0, 1 (it failed) or 2 (wrong use). A user's mistake, a full disk or a full
    memory prints one line and no traceback."""
    from glassformer.errors import GlassformerError, LostProcessError

    start_clock()
    fit_streams()
    warnings.showwarning = _one_line_warning  # type: ignore[assignment]
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # SIGTERM stops like Ctrl-C: files are closed
    try:
        words, modules = take_plugins(sys.argv[1:])
        if modules:
            from glassformer.plugins import load_plugin

            for module in modules:
                load_plugin(module)
        if app(words, standalone_mode=False, prog_name="glassformer") == CTRL_C:
            _fail("stopped")
        sys.stdout.flush()  # raises BrokenPipeError here, not while Python shuts down
    except LostProcessError as error:
        _fail(f"error: {error}" if _rank() == 0 else None)
    except GlassformerError as error:
        _fail(f"{error.prefix}{error}", error.exit_code)
    except CommandLineError as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            error.show()
            sys.exit(2)
        _fail(f"error: {_what_is_wrong(error)}", 2)
    except (KeyboardInterrupt, typer.Abort):
        _fail("stopped")
    except BrokenPipeError:  # the reader of our output has ended (head, less)
        with contextlib.suppress(OSError, ValueError):  # ValueError: standard output is not a file
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _fail(f"error: {where}{error.strerror or error}; fix that and run again")
    except (MemoryError, RuntimeError) as error:
        if not (isinstance(error, MemoryError) or OUT_OF_MEMORY.search(str(error))):
            raise
        _fail("error: the memory is full; try a smaller training.micro_batch_size, model.block_size or model.n_layer")


def _fail(line: str | None, code: int = 1) -> NoReturn:
    """End this process with one line, or silently where another process prints the line."""
    if line is not None:
        typer.echo(f"rank {_rank()}: {line}" if _rank() else line, err=True)
    sys.stdout.flush()
    sys.stderr.flush()
    if "TORCHELASTIC_RUN_ID" in os.environ:
        os._exit(code)  # a normal exit would wait for the other processes, which may have ended
    sys.exit(code)


def _rank() -> int:
    """This process's number, if `torchrun` started several."""
    return int(os.environ.get("RANK", "0")) if "TORCHELASTIC_RUN_ID" in os.environ else 0


def _what_is_wrong(error: Any) -> str:
    """typer's message as one line: what is wrong, the nearest known word, which help to read."""
    from glassformer.errors import did_you_mean

    message = error.format_message().rstrip(".")
    context = getattr(error, "ctx", None)
    if (unknown := re.match(r"No such command '([^']*)'", message)) and context is not None:
        message = f"there is no command {unknown[1]!r}; {did_you_mean(unknown[1], context.command.commands)}"
    message = re.sub(r" \(Possible options: (.*)\)", r"; did you mean \1?", message)
    message = re.sub(r"Input should be a valid integer.*", "a whole number is needed", message)
    message = re.sub(r"Input should be a valid number.*", "a number is needed", message)
    where = f"; see: {context.command_path} --help" if context is not None else ""
    return message[0].lower() + message[1:] + where


def _one_line_warning(message: Warning | str, category: type[Warning], *where: object) -> None:
    """Print our warnings; those of libraries only with `PYTHONWARNINGS=default` or `python -W`."""
    from glassformer.errors import GlassformerWarning

    if issubclass(category, GlassformerWarning) or sys.warnoptions:
        typer.echo(f"warning: {message}", err=True)
