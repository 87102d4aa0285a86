"""`model: "auto"`: a classifier reads a request and names the served model that answers it."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from glassformer.errors import UsageError, known_names
from glassformer.generation import classify, commands_for
from glassformer.hub import load
from glassformer.processors.tokenizers import Tokenizer
from glassformer.server.middleware import APIError
from glassformer.server.openai_schemas import ChatBody, CompletionBody, as_list
from glassformer.server.worker import ModelHandle

AUTO = "auto"
"""The name under which a router is asked."""


@dataclass
class Router:
    """A classifier of texts, whose classes are the names of served models.

    routed: how many requests each of them got.
    """

    model: Any
    tokenizer: Tokenizer
    labels: tuple[str, ...]
    routed: Counter[str] = field(default_factory=Counter)
    created: int = field(default_factory=lambda: int(time.time()))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def choose(self, text: str) -> str:
        """The name of the model for a text; it is counted. A text without a token goes to the first model."""
        with self._lock:
            if not self.tokenizer.encode(text):
                name = self.labels[0]
            else:
                (probabilities,) = classify(self.model, self.tokenizer, [text])
                name = self.labels[int(probabilities.argmax())]
            self.routed[name] += 1
        return name


def open_router(path: str, models: Mapping[str, ModelHandle], *, device: str = "cpu") -> Router:
    """The classifier in a run or model folder as the router of some models.

    Raises:
        UsageError: it does not classify texts; a class is no served model that generates; such a model is no class; a
            model is called "auto". ModelFolderError, TokenizerError: as `load`.
    """
    if AUTO in models:
        raise UsageError(f"a served model is called {AUTO}, which is the router's name; rename its folder")
    bundle = load(path, device=device)
    if "classify" not in commands_for(bundle.model, bundle.tokenizer) or bundle.model.reads != "text":
        raise UsageError(f"--router {path}: it does not classify texts; train one with task.kind=classify")
    writers = [name for name, handle in models.items() if handle.worker is not None]
    if unknown := [label for label in bundle.labels if label not in writers]:
        raise UsageError(
            f"--router {path}: its class {unknown[0]} is no served model that writes (there are "
            f"{known_names(writers)}); the labels of its training examples must be the names of the models"
        )
    if missing := [name for name in writers if name not in bundle.labels]:
        raise UsageError(
            f"--router {path}: it knows no class {missing[0]} (it has {known_names(bundle.labels)}); train it with "
            "that label too, or serve the others alone"
        )
    return Router(bundle.model, bundle.tokenizer, tuple(bundle.labels))


def text_to_route(body: ChatBody | CompletionBody) -> str:
    """What the router reads of a request: the user's last message, or the prompt.

    Raises:
        APIError: there are several prompts, or token ids, which belong to one vocabulary.
    """
    if isinstance(body, ChatBody):
        return next((str(m.turn()["content"]) for m in reversed(body.messages) if m.role == "user"), "")
    (first, *others) = as_list(body.prompt)
    if others or not isinstance(first, str):
        message = f"model {AUTO!r} reads one text as a prompt; send each in a request of its own, or name a model"
        raise APIError(400, message, param="prompt")
    return first
