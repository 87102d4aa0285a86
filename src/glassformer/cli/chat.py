"""`glassformer chat`: talk to a model in the terminal."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from glassformer.generation import Chat, Piece

HELP = """/reset              begin anew             /system TEXT       set the system text, and begin anew
/temperature T      0 is the likeliest     /why [N]           what else the last token could have been
/save FILE          keep the turns         /load FILE         go on with kept turns
/colors             on or off: how surprising each token was       /help   /exit
A line that ends with \\ goes on in the next one. Ctrl-C stops an answer, Ctrl-D ends the chat."""


def chat(
    model: str = typer.Argument(metavar="MODEL", help="A run, a model folder or a pulled model."),
    message: str = typer.Option(None, "--message", "-m", metavar="TEXT", help="Say this, print the answer and end."),
    system: str = typer.Option(None, metavar="TEXT", help="What stands before all turns."),
    temperature: float = typer.Option(
        None,
        metavar="T",
        help="0 takes the most likely token, as --message does; larger is wilder; else the model's folder's, or 0.7.",
    ),
    top_p: float = typer.Option(
        None,
        metavar="P",
        help="Keep the fewest tokens whose probability reaches p; 0.95 unless the model's folder says.",
    ),
    seed: int = typer.Option(None, metavar="NUMBER", help="Same seed, same answers; a new one each time if left out."),
    max_new_tokens: int = typer.Option(
        None, "--max-new-tokens", "-n", metavar="N", help="Of one answer, at most; 512 unless the model's folder says."
    ),
    colors: bool = typer.Option(False, "--colors", help="Color tokens by how surprising they were."),
    user: str = typer.Option("Q", metavar="NAME", help="Without a template: who asks."),
    assistant: str = typer.Option("A", metavar="NAME", help="Without a template: who answers."),
    device: str = typer.Option("auto", metavar="DEVICE", help="auto, cpu or cuda."),
    dtype: str = typer.Option("fp32", metavar="TYPE", help="fp32 (exact), auto, bf16, int8 or int4 (fast on a CPU)."),
) -> None:
    """Talk to a model.

    Examples:

    glassformer chat smollm2-135m-instruct

    glassformer chat smollm2-135m-instruct --message "What is the capital of France?"
    """
    import random

    from glassformer.cli.opening import open_for, show_defaults
    from glassformer.generation import Chat, sampling_of
    from glassformer.generation.chat import Speakers

    loaded, tokenizer = open_for("generate", model, device, dtype)
    if temperature is None and message is not None:  # a script wants the answer and no throw of dice
        temperature = 0.0
    given = {"temperature": temperature, "top_p": top_p}
    show_defaults(loaded, {**given, "max_new_tokens": max_new_tokens})
    start = random.SystemRandom().randrange(2**31) if seed is None else seed
    talk = Chat(
        loaded,
        tokenizer,
        system=system,
        sampling=sampling_of(loaded, {**given, "seed": start}, {"temperature": 0.7, "top_p": 0.95}),
        max_new_tokens=max_new_tokens,
        speakers=Speakers(user, assistant),
    )
    if message is not None:
        _say(talk, message, colors)
        return
    _Prompt(talk, model, colors).run()


class _Prompt:
    """Lines from the keyboard: commands and turns."""

    def __init__(self, talk: Chat, name: str, colors: bool):
        self.talk, self.name, self.colors = talk, name, colors
        self.last: list[Piece] = []

    def run(self) -> None:
        layout = "its own template" if self.talk.has_template else "no chat template: turns are laid out as plain text"
        typer.echo(
            f"{self.name}: {layout}, {self.talk.model.config.block_size:,} tokens of context. /help lists commands."
        )
        _remember_lines()
        while (line := self._line()) is not None:
            if line.startswith("/"):
                if not self._command(*line[1:].split(maxsplit=1)):
                    return
            elif line.strip():
                self._turn(line)

    def _line(self) -> str | None:
        """What was typed, several lines of it where each but the last ends with a backslash; None at the end."""
        typed = ""
        try:
            while True:
                piece = input("... " if typed else ">>> ")
                if not piece.endswith("\\"):
                    return typed + piece
                typed += piece[:-1] + "\n"
        except EOFError:
            typer.echo()
            return None
        except KeyboardInterrupt:
            typer.echo()
            return ""

    def _turn(self, line: str) -> None:
        from dataclasses import replace

        from glassformer.errors import GlassformerError

        try:
            self.last = _say(self.talk, line, self.colors)
        except GlassformerError as error:
            typer.echo(f"error: {error}", err=True)
            return
        self.talk.sampling = replace(self.talk.sampling, seed=self.talk.sampling.seed + 1)
        if self.talk.dropped:
            typer.echo(f"(the oldest {self.talk.dropped} turns no longer fit and were left out)", err=True)

    def _command(self, name: str = "", argument: str = "") -> bool:
        """Do what a line with a slash says; False ends the chat."""
        from glassformer.errors import GlassformerError

        try:
            if name in ("exit", "quit", "bye"):
                return False
            if name in ("reset", "system", "temperature", "save", "load", "why", "colors"):
                typer.echo(getattr(self, f"_{name}")(argument))
            else:
                typer.echo(HELP if name == "help" else f"there is no command /{name}\n{HELP}")
        except GlassformerError as error:
            typer.echo(f"error: {error}", err=True)
        return True

    def _reset(self, _: str) -> str:
        self.talk.reset()
        return "begun anew"

    def _system(self, text: str) -> str:
        self.talk.system = text or None
        self.talk.reset()
        return "begun anew with this system text" if text else "begun anew without a system text"

    def _temperature(self, text: str) -> str:
        from dataclasses import replace

        from glassformer.errors import UsageError

        try:
            self.talk.sampling = replace(self.talk.sampling, temperature=float(text))
        except ValueError as error:
            if isinstance(error, UsageError):
                raise
            raise UsageError(f"/temperature {text}: give a number, for example /temperature 0.7") from None
        return f"temperature {self.talk.sampling.temperature:g}"

    def _save(self, path: str) -> str:
        from glassformer.errors import UsageError
        from glassformer.files import write_json

        if not path:
            raise UsageError("/save needs the name of a file")
        write_json(path, {"system": self.talk.system, "messages": self.talk.messages})
        return f"{len(self.talk.messages)} turns saved in {path}"

    def _load(self, path: str) -> str:
        from pathlib import Path

        from glassformer.errors import UsageError
        from glassformer.text_files import decode, parse_json

        try:
            kept = parse_json(decode(Path(path).read_bytes()))
            messages = [{"role": str(m["role"]), "content": str(m["content"])} for m in kept["messages"]]
            system = kept.get("system")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UsageError(f"{path}: no saved chat ({error}); /save FILE makes one") from None
        if any(message["role"] not in ("user", "assistant") for message in messages):
            raise UsageError(f"{path}: a turn is neither a user's nor the assistant's")
        self.talk.system, self.talk.messages = system if isinstance(system, str) else None, messages
        return f"{len(messages)} turns"

    def _colors(self, _: str) -> str:
        self.colors = not self.colors
        return f"colors {'on: the redder, the more surprising (-log2 of the probability)' if self.colors else 'off'}"

    def _why(self, argument: str) -> str:
        from glassformer.errors import UsageError

        if not self.last:
            return "nothing was said yet"
        said = [piece for piece in self.last if piece.finish_reason != "end_of_text"] or self.last
        if argument and not (argument.isdecimal() and 1 <= int(argument) <= len(said)):
            raise UsageError(f"/why {argument}: give a number from 1, the last token, to {len(said)}, the first")
        piece, which = said[-int(argument or 1)], f"token {argument} from the end" if argument else "the last token"
        own, drawn = piece.probability, piece.sampling_probability
        lines = [f"{which}, {piece.token_text!r}: {own:.1%} by the model, {drawn:.1%} drawn"]
        lines += [f"  {other.probability:>6.1%}  {other.text!r}" for other in piece.alternatives]
        rest = 1 - sum(other.probability for other in piece.alternatives)
        return "\n".join([*lines, f"  {max(rest, 0.0):>6.1%}  all other tokens"])


def _say(talk: Chat, text: str, colors: bool) -> list[Piece]:
    """Print the answer while it is written; Ctrl-C stops it."""
    from glassformer.cli.telling import teller

    pieces: list[Piece] = []
    answer, tell = talk.ask(text), teller(colors)
    try:
        for piece in answer:
            pieces.append(piece)
            tell(piece)
    except KeyboardInterrupt:
        answer.close()  # type: ignore[attr-defined]
    sys.stdout.write("\n")
    return pieces


def _remember_lines() -> None:
    """Arrow keys bring back what was typed, in this chat and in those before it."""
    if not sys.stdin.isatty():
        return
    try:
        import readline
    except ImportError:  # Windows
        return
    import atexit
    import contextlib

    from glassformer.files import cache_folder

    path = cache_folder() / "chat-history"
    with contextlib.suppress(OSError):
        readline.read_history_file(path)
    readline.set_history_length(1000)

    def keep() -> None:
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            readline.write_history_file(path)
            path.chmod(0o600)  # what one typed is one's own

    atexit.register(keep)
