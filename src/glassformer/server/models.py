"""The models that are served, each with what requests need of it."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from glassformer.errors import UsageError
from glassformer.generation import Engine, commands_for, from_the_folder
from glassformer.generation.generate import prompt_ids
from glassformer.generation.requests import check_ids
from glassformer.hub import load
from glassformer.models import Decoder, Encoder, settings_of
from glassformer.processors.tokenizers import Tokenizer
from glassformer.server.middleware import APIError
from glassformer.server.worker import LogitsReader, Worker

P = ParamSpec("P")
R = TypeVar("R")


class ModelHandle:
    """One model under its name. It generates (`worker`), or it gives vectors for texts (`worker` is None)."""

    def __init__(self, name: str, model: Any, tokenizer: Tokenizer, **engine: Any):
        self.name, self.model, self.tokenizer = name, model, tokenizer
        self.created = int(time.time())
        self.worker: Worker | None = None
        self._lock = threading.Lock()
        if isinstance(model, Decoder) and "generate" in commands_for(model, tokenizer):
            self.worker = Worker(functools.partial(Engine, model, tokenizer, **engine))
            self.logits_reader = LogitsReader(model, tokenizer)  # for jobs of the worker's thread only
        elif not isinstance(model, Encoder) or model.reads != "text":
            raise UsageError(f"{name}: a {type(model).__name__} cannot be served; decoders and encoders of text can")

    @property
    def block_size(self) -> int:
        """How many tokens the model reads."""
        return int(self.model.config.block_size)

    def run_alone(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a function that uses the model, of a model without a worker: one call at a time."""
        with self._lock:
            return function(*args, **kwargs)

    @property
    def has_chat(self) -> bool:
        """Whether it has a chat template."""
        return self.worker is not None and self.tokenizer.chat_template is not None

    @property
    def defaults(self) -> dict[str, Any]:
        """The settings of the model's folder that a request overrides, by the names of a request's fields."""
        names = {"max_new_tokens": "max_tokens"}
        return {names.get(name, name): value for name, value in from_the_folder(self.model, {}).items()}

    def prompt_ids(self, prompt: str) -> list[int]:
        """The ids that the model reads for a text, never none: its first token stands for an empty one."""
        return prompt_ids(self.tokenizer, prompt, settings_of(self.model).bos_token_id)

    def chat_ids(self, messages: Iterable[Any], *, instead: str) -> list[int]:
        """The ids of a chat (`schemas.Message`s), up to where the answer begins.

        Raises:
            APIError: there is no chat template. UsageError: the template refuses the messages.
        """
        if not self.has_chat:
            raise APIError(400, f"{self.name} has no chat template; {instead}", code="no_chat_template")
        return self.tokenizer.chat.encode([message.turn() for message in messages], add_generation_prompt=True)

    def check_tokens(self, ids: Iterable[int], param: str) -> None:
        """Raise `APIError` for an id that the tokenizer or the model's table does not have."""
        try:
            check_ids(ids, self.tokenizer, self.model.config.vocab_size)
        except UsageError as error:
            raise APIError(400, str(error), param=param) from None

    def check_length(self, n: int, *, free: int = 0, param: str = "prompt") -> None:
        """Raise `APIError` for more tokens than the model reads, or fewer than `free` places left for an answer."""
        if n + free > self.block_size:
            raise APIError(
                400,
                f"the prompt has {n:,} tokens and {self.name} reads {self.block_size:,} at most; shorten it",
                code="context_length_exceeded",
                param=param,
            )


def find_model(models: Mapping[str, ModelHandle], name: str | None, *, generates: bool = False) -> ModelHandle:
    """The model of this name; the first one for None.

    Raises:
        APIError: there is no such model, or it does not generate and should.
    """
    if name is None:
        name = next(iter(models))
    if name not in models:
        known = ", ".join(models)
        raise APIError(404, f"there is no model {name!r}; there are: {known}", code="model_not_found", param="model")
    if generates and models[name].worker is None:
        raise APIError(400, f"{name} writes nothing; it gives vectors: use /v1/embeddings", param="model")
    return models[name]


def open_models(paths: Sequence[str], *, device: str, dtype: str, **engine: Any) -> dict[str, ModelHandle]:
    """The models at these paths by their names; a folder of runs gives all of its runs.

    Raises:
        UsageError: none, or two of the same name. ModelFolderError, TokenizerError: as `load`.
    """
    found: dict[str, ModelHandle] = {}
    for path in paths:
        folder = Path(path)
        runs = sorted(entry.parent.parent for entry in folder.glob("*/model/config.json"))
        is_model = (folder / "config.json").is_file() or (folder / "model" / "config.json").is_file()
        for each in [path] if is_model or not runs else map(str, runs):
            name = Path(each).name if Path(each).exists() else each
            if name in found:
                raise UsageError(f"{each}: another model is called {name} already; serve one of the two")
            model, tokenizer = load(each, device=device, dtype=dtype)
            found[name] = ModelHandle(name, model, tokenizer, **engine)
    if not found:
        raise UsageError("no model to serve; name one, for example: glassformer serve smollm2-135m-instruct")
    return found
