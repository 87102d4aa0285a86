"""Options of views: what a signature declares, and the types that several views share.

    def lens(model: Any, tokenizer: Tokenizer, text: Text, *, top: Top = 5) -> LensView: ...

From it follow the command with its `--help`, the checks (pydantic) and the JSON schema. Help reads the signature from
the source text, because a view imports torch and this module imports neither torch nor pydantic.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

if TYPE_CHECKING:
    from torch import Tensor

GIVEN = (
    *("name", "model", "model_or_size", "tokenizer", "source_tokenizer", "source_processor", "input_tokenizer"),
    *("vectors", "open_model", "labels"),
)
"""Parameters that are no options: the caller has opened the model (`inspection.look.Subject`)."""


@dataclass(frozen=True)
class Option:
    """What a parameter means and which values it takes: `Annotated[int, Option("How many.", ge=1)]`."""

    description: str = ""
    ge: int | None = None  # the smallest value
    le: int | None = None  # the largest value
    max_length: int | None = None  # of a list
    slider: int = 0  # the page has a slider with this step, which works while it is moved; 0: none
    flag: str = ""  # of the command, where it is not the name
    command: str = ""  # what the command line adds to the description


@dataclass(frozen=True)
class Parameter:
    """A parameter of a view that is an option."""

    name: str
    annotation: Any
    option: Option
    default: Any  # `inspect.Parameter.empty`: it is required
    keyword_only: bool

    @property
    def is_required(self) -> bool:
        return self.default is inspect.Parameter.empty


IN_QUOTES = "In quotes; - reads standard input."
Text = Annotated[str, Option("A text.", command=IN_QUOTES)]
TextOrImage = Annotated[
    "str | Tensor", Option("A text. Or an image file; or FILE.npz:EPISODE:STEP.", command=IN_QUOTES)
]
Corpus = Annotated[str | Iterable[str], Option("Texts to look in.")]
Target = Annotated[str | None, Option("For a translator: the target text; default: its own answer.")]
Position = Annotated[int, Option("The position of the token; -1 is the last.")]
OptionalPosition = Annotated[
    int | None, Option("The position of the token; default: the last (for an encoder the first <mask>).")
]
Size = Annotated[
    Literal[
        "gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl", "gpt3-small", "gpt3-medium", "gpt3-large", "gpt3-xl",
        "gpt3-2.7b", "gpt3-6.7b", "gpt3-13b", "gpt3",
    ] | None,
    Option("Count this size, and not the model."),
]  # fmt: skip
Layer = Annotated[int, Option("The layer, from 0.")]
Head = Annotated[int, Option("The head, from 0.")]
AttentionKind = Annotated[
    Literal["self", "cross", "encoder"], Option("self; for a translator also cross (to the source) and encoder.")
]
KeysAsRows = Annotated[bool, Option("Keys as rows, as in the lecture; otherwise queries as rows, as in code.")]
Top = Annotated[int, Option("How many to show.", ge=1)]
Token = str | int | None
Temperature = Annotated[float, Option("Divides the logits; 0 takes the most likely token.")]
TopK = Annotated[int, Option("Keep the k most likely tokens; 0 keeps all.")]
TopP = Annotated[float, Option("Keep the fewest tokens whose probability reaches p.")]
MinP = Annotated[float, Option("Keep tokens with at least P times the probability of the best.")]
Penalty = Annotated[float, Option("Above 1: make tokens that occurred already less likely.")]
Seed = Annotated[int, Option("Seed of the random numbers.")]
Pair = str | tuple[str, str]  # "cat:cats", or two words


def inputs_of(function: Callable[..., Any]) -> list[str]:
    """Which of `GIVEN` a view needs."""
    return [name for name in inspect.signature(function).parameters if name in GIVEN]


def parameters_of(function: Callable[..., Any], tensor: Any = Any) -> list[Parameter]:
    """The parameters that are options, in order; `tensor` stands for torch's `Tensor` in their annotations."""
    hints = get_type_hints(function, localns={"Tensor": tensor, "Sequence": Sequence}, include_extras=True)
    return [
        Parameter(p.name, hints[p.name], _option_in(hints[p.name]), p.default, p.kind is p.KEYWORD_ONLY)
        for p in inspect.signature(function).parameters.values()
        if p.name not in GIVEN
    ]


def _option_in(annotation: Any) -> Option:
    """The `Option` of an annotation, or one with the description and lower bound of a pydantic field."""
    for each in getattr(annotation, "__metadata__", ()):
        if isinstance(each, Option):
            return each
        if hasattr(each, "description"):
            least = next((rule.ge for rule in each.metadata if hasattr(rule, "ge")), None)
            return Option(each.description or "", ge=least)
    return Option()


def declaration(module: str, name: str) -> Callable[..., Any] | None:
    """A function with the signature, docstring and `examples` of a view, read from the source of its module, which is
    not imported. None: there is no source, or the signature needs more than literals and the names of this module.
    """
    package, *rest = module.split(".")
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        return None
    source = Path(spec.origin).parent.joinpath(*rest).with_suffix(".py") if rest else Path(spec.origin)
    tree = ast.parse(source.read_text(encoding="utf-8")) if source.is_file() else ast.Module([], [])
    function = next((node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name), None)
    if function is None:
        return None

    def declared() -> None:
        raise NotImplementedError

    try:
        signature = inspect.Signature(_signature(function.args))
        declared.__signature__ = signature  # type: ignore[attr-defined]
        declared.__annotations__ = {p.name: p.annotation for p in signature.parameters.values() if p.name not in GIVEN}
        parameters_of(declared)
    except (NameError, ValueError):
        return None
    declared.__doc__ = ast.get_docstring(function)
    declared.examples = _examples(function)  # type: ignore[attr-defined]
    return declared


def _signature(args: ast.arguments) -> list[inspect.Parameter]:
    defaults = [None] * (len(args.args) - len(args.defaults)) + args.defaults
    positional = map(_parameter, args.args, defaults)
    keyword_only = map(_parameter, args.kwonlyargs, args.kw_defaults)
    return [*positional, *(p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in keyword_only)]


def _parameter(arg: ast.arg, default: ast.expr | None) -> inspect.Parameter:
    value = inspect.Parameter.empty if default is None else ast.literal_eval(default)
    annotation = Any if arg.annotation is None else ast.unparse(arg.annotation)
    return inspect.Parameter(arg.arg, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=value, annotation=annotation)


def _examples(function: ast.FunctionDef) -> tuple[str, ...]:
    """The arguments of the decorator `view`."""
    for call in function.decorator_list:
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "view":
            return tuple(ast.literal_eval(line) for line in call.args)
    return ()
