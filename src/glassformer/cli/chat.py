"""`glassformer chat`: a conversation with a model in the terminal."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer

from glassformer.cli import options
from glassformer.cli.output import piece_printer

if TYPE_CHECKING:
    from glassformer.generation import Chat, Piece
    from glassformer.generation.tools import ChatMemory

HELP = """/reset              remove all turns       /system TEXT       set the system text, and remove all turns
/temperature T      0: most likely token   /why [N]           the most likely tokens at the last token (N-th last)
/save FILE          save the turns         /load FILE         continue with saved turns
/tools              list the tools         /colors             on or off: color each token by its surprise
/memory [WORDS]     list memories, or search them      /forget N|all   delete memories      /help   /exit
A line that ends with \\ continues in the next one. Ctrl-C stops an answer, Ctrl-D ends the chat."""


def chat(
    model: options.Model,
    message: str = typer.Option(
        None, "--message", "-m", metavar="TEXT", help="Send this message, print the answer and exit."
    ),
    system: str = typer.Option(None, metavar="TEXT", help="The system prompt."),
    temperature: float = typer.Option(
        None, metavar="T", help="0: the most likely token; default: 0 with --message, else the model's own, or 0.7."
    ),
    top_p: float = typer.Option(
        None,
        metavar="P",
        help="Keep the most likely tokens that together have probability P; default: the model's own, or 0.95.",
    ),
    seed: options.Seed = None,
    max_new_tokens: int = typer.Option(
        None,
        "--max-new-tokens",
        "-n",
        metavar="N",
        help="The most tokens of one answer; default: the model's own, or 512.",
    ),
    colors: options.Colors = False,
    user: str = typer.Option("Q", metavar="NAME", help="Without a chat template: the name of the user."),
    assistant: str = typer.Option("A", metavar="NAME", help="Without a chat template: the name of the model."),
    tool: list[str] = typer.Option(
        None, metavar="NAME", help="Let it call a tool: calculator, clock, notebook, or module:function; repeatable."
    ),
    memory: str = typer.Option(
        None, metavar="FOLDER", help="Remember the chat in this folder, and let it search earlier ones."
    ),
    json_schema: options.JsonSchema = None,
    grammar: options.LarkGrammar = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    adapter: options.Adapter = None,
) -> None:
    """Chat with a model.

    Examples:

    glassformer chat smollm2-135m-instruct

    glassformer chat smollm2-135m-instruct --message "What is the capital of France?"

    glassformer chat runs/my-assistant --tool calculator --tool clock --memory memories

    glassformer chat smollm2-135m-instruct --json-schema person.json --message "Ann is 31 years old. Who is it?"

    glassformer chat smollm2-135m-instruct --adapter runs/mine
    """
    from glassformer.cli.options import open_for, show_defaults
    from glassformer.generation import Chat, sampling_of
    from glassformer.generation.chat import Speakers
    from glassformer.generation.tools import ChatMemory, toolbox

    memories = None if memory is None else ChatMemory(memory)
    box = toolbox(tool or [], memories)
    loaded, tokenizer = open_for("generate", model, device, dtype, adapter)
    if temperature is None and message is not None:  # a script should get the same answer every time
        temperature = 0.0
    given = {"temperature": temperature, "top_p": top_p}
    show_defaults(loaded, {**given, "max_new_tokens": max_new_tokens})
    given["seed"] = options.seed_or_random(seed)
    chat = Chat(
        loaded,
        tokenizer,
        system=system,
        sampling=sampling_of(loaded, given, {"temperature": 0.7, "top_p": 0.95}),
        max_new_tokens=max_new_tokens,
        speakers=Speakers(user, assistant),
        tools=box,
        grammar=options.read_grammar(tokenizer, json_schema, grammar),
    )
    if message is not None:
        _answer(chat, message, colors)
    else:
        _Session(chat, model, colors, memories).run()


class _Session:
    """Reads lines: `/NAME` calls the method `_NAME` and prints its result; any other line is a turn."""

    COMMANDS = ("reset", "system", "temperature", "save", "load", "why", "colors", "tools", "memory", "forget", "help")

    def __init__(self, chat: Chat, name: str, colors: bool, memories: ChatMemory | None = None):
        self.chat, self.name, self.colors, self.memories = chat, name, colors, memories
        self.last: list[Piece] = []

    def run(self) -> None:
        from glassformer.errors import GlassformerError

        layout = "its own chat template" if self.chat.has_template else "no chat template: turns become plain text"
        context = self.chat.model.config.block_size
        typer.echo(f"{self.name}: {layout}, {context:,} tokens of context. /help lists commands.")
        _remember_lines()
        while (line := self._line()) is not None:
            name, _, argument = line[1:].partition(" ")
            if line.startswith("/") and name in ("exit", "quit", "bye"):
                return
            try:
                if not line.startswith("/"):
                    self._turn(line)
                elif name in self.COMMANDS:
                    typer.echo(getattr(self, f"_{name}")(argument.strip()))
                else:
                    typer.echo(f"there is no command /{name}\n{HELP}")
            except GlassformerError as error:
                typer.echo(f"error: {error}", err=True)

    def _line(self) -> str | None:
        """The typed line, joined with the next while it ends with a backslash; None at the end."""
        typed = ""
        try:
            while True:
                part = input("... " if typed else ">>> ")
                if not part.endswith("\\"):
                    return typed + part
                typed += part[:-1] + "\n"
        except (EOFError, KeyboardInterrupt) as end:
            typer.echo()
            return "" if isinstance(end, KeyboardInterrupt) else None

    def _turn(self, line: str) -> None:
        from dataclasses import replace

        if not line.strip():
            return
        self.last = _answer(self.chat, line, self.colors)
        self.chat.sampling = replace(self.chat.sampling, seed=self.chat.sampling.seed + 1)
        if self.chat.dropped:
            typer.echo(f"(the oldest {self.chat.dropped} turns no longer fit and were left out)", err=True)

    def _help(self, _: str) -> str:
        return HELP

    def _reset(self, _: str) -> str:
        self.chat.reset()
        return "started over"

    def _system(self, text: str) -> str:
        self.chat.system = text or None
        self.chat.reset()
        return "started over with this system text" if text else "started over without a system text"

    def _temperature(self, text: str) -> str:
        from dataclasses import replace

        from glassformer.errors import UsageError

        try:
            temperature = float(text)
        except ValueError:
            raise UsageError(f"/temperature {text}: give a number, for example /temperature 0.7") from None
        self.chat.sampling = replace(self.chat.sampling, temperature=temperature)
        return f"temperature {temperature:g}"

    def _save(self, path: str) -> str:
        from glassformer.errors import UsageError

        if not path:
            raise UsageError("/save needs the name of a file")
        self.chat.save(path)
        return f"{len(self.chat.messages)} turns saved in {path}"

    def _load(self, path: str) -> str:
        self.chat.load(path)
        return f"{len(self.chat.messages)} turns"

    def _colors(self, _: str) -> str:
        self.colors = not self.colors
        return f"colors {'on: the redder, the more surprising (-log2 of the probability)' if self.colors else 'off'}"

    def _tools(self, _: str) -> str:
        found = (f"{tool.name}: {tool.description.splitlines()[0]}" for tool in self.chat.toolbox.tools.values())
        return "\n".join(found) or "no tools; start the chat with --tool NAME"

    def _memory(self, words: str) -> str:
        memories = self._known()
        found = memories.search(words, 20) if words else memories.all()
        return "\n".join(map(str, found)) or "nothing was found"

    def _forget(self, which: str) -> str:
        from glassformer.errors import UsageError

        memories = self._known()
        if which == "all":
            return f"{memories.clear()} memories deleted"
        if not which.isdecimal():
            raise UsageError("/forget needs the number of a memory (/memory lists them), or all")
        memories.delete(int(which))
        return f"memory {which} deleted"

    def _known(self) -> ChatMemory:
        from glassformer.errors import UsageError

        if self.memories is None:
            raise UsageError("this chat has no memory; start it with --memory FOLDER")
        return self.memories

    def _why(self, argument: str) -> str:
        from glassformer.errors import UsageError

        if not self.last:
            return "there is no answer yet"
        pieces = [piece for piece in self.last if piece.finish_reason != "end_of_text"] or self.last
        if argument and not (argument.isdecimal() and 1 <= int(argument) <= len(pieces)):
            raise UsageError(f"/why {argument}: give a number from 1, the last token, to {len(pieces)}, the first")
        piece, which = pieces[-int(argument or 1)], f"token {argument} from the end" if argument else "the last token"
        own, sampled = piece.probability, piece.sampling_probability
        lines = [f"{which}, {piece.token_text!r}: {own:.1%} by the model, {sampled:.1%} after temperature and filters"]
        if self.chat.grammar is not None:
            lines += [f"the model gives {piece.allowed_probability:.1%} to what the grammar allows; ✗: not allowed"]
        for other in piece.alternatives:
            lines += [f"  {other.probability:>6.1%}  {other.text!r}{'' if other.allowed else ' ✗'}"]
        rest = 1 - sum(other.probability for other in piece.alternatives)
        return "\n".join([*lines, f"  {max(rest, 0.0):>6.1%}  all other tokens"])


def _answer(chat: Chat, text: str, colors: bool) -> list[Piece]:
    """Print the answer while it is written, with the tools that it calls; Ctrl-C stops it."""
    from glassformer.generation.tools import ToolUse

    pieces: list[Piece] = []
    answer, print_piece = chat.ask(text), piece_printer(colors)
    try:
        for piece in answer:
            if isinstance(piece, ToolUse):
                typer.echo(f"\n[{piece.name} {piece.arguments}]\n[= {piece.result}]")
                continue
            pieces.append(piece)
            print_piece(piece)
    except KeyboardInterrupt:
        answer.close()  # type: ignore[attr-defined]
    sys.stdout.write("\n")
    return pieces


def _remember_lines() -> None:
    """Let arrow keys show the lines of this and of earlier chats."""
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
            path.chmod(0o600)  # private

    atexit.register(keep)
