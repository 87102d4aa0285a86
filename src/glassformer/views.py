"""The list of views: what `glassformer look`, `inspection.look` and `/api/look` offer.

    VIEWS["mine"] = ViewEntry("my_module:my_view", "What it shows, in a line.")

A view is a function that returns an `inspection.View`. Its signature has everything else: parameters with the names
of `inspection.look.Subject` (`model`, `tokenizer`, ...) are filled in, other positional ones are arguments of the
command, keyword-only ones its options, with types, defaults, bounds and descriptions (`view_options`).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from glassformer.errors import UsageError, did_you_mean
from glassformer.view_options import declaration


@dataclass(frozen=True)
class ViewEntry:
    """A view of the list."""

    function: Callable[..., Any] | str  # or where it is, "module:function"
    summary: str  # one line for `--help`

    def load(self) -> Callable[..., Any]:
        """The function, imported now if it was not yet."""
        if not isinstance(self.function, str):
            return self.function
        module, _, name = self.function.partition(":")
        found: Callable[..., Any] = getattr(importlib.import_module(module), name)
        return found

    def declaration(self) -> Callable[..., Any]:
        """A function with the same signature and docstring; torch is not imported for it if that can be avoided."""
        if not isinstance(self.function, str):
            return self.function
        return declaration(*self.function.split(":")) or self.load()


def _own(function: str, summary: str) -> ViewEntry:
    return ViewEntry(f"glassformer.inspection.{function}", summary)


VIEWS: dict[str, ViewEntry] = {
    "tokens": _own("tokens:tokens", "How a text becomes tokens: ids, bytes, each merge."),
    "tokenizers": _own("tokenizers:tokenizers", "One text by several tokenizers, side by side."),
    "neighbours": _own("geometry:neighbours", "The words with the most similar embeddings."),
    "analogy": _own("geometry:analogy", "The words nearest to A - B + C."),
    "direction": _own("geometry:direction", "The direction that pairs of words share (cat:cats)."),
    "components": _own("geometry:pca", "Words in three principal components (PCA)."),
    "vocabulary": _own("vocabulary:vocabulary", "The whole vocabulary in three dimensions."),
    "parameters": _own("parameters:parameters", "Count all parameters, in eight categories."),
    "tensors": _own("tensors:tensors", "Every tensor: shape, statistics, histogram."),
    "next": _own("next_token:next_token", "The distribution over the next token."),
    "surprise": _own("surprise:surprise", "The surprise of each token of a text, in bits."),
    "compare": _own("compare:compare_models", "The next token at other temperatures or models."),
    "diffusion": _own("diffusion:diffusion", "A text written by diffusion, draft by draft."),
    "attention": _own("attention:attention", "Which tokens each head attends to."),
    "attention-grid": _own("attention_grid:attention_grid", "All layers and heads as one grid of small maps."),
    "links": _own("head_links:links", "Which heads connect two words of a text."),
    "ablation": _own("ablation:ablation", "The prediction without a head, neuron or layer."),
    "patching": _own("patching:patching", "What a vector of another prompt brings back."),
    "speech": _own("speech:speech", "A sound, and where each token listens in it."),
    "induction": _own("induction:induction_scores", "Which heads continue repeated text."),
    "attention-walkthrough": _own(
        "attention_walkthrough:attention_walkthrough", "One head and one query, number by number."
    ),
    "context": _own("context:context", "The same word in several sentences, layer by layer."),
    "neurons": _own("neurons:neurons", "What activates a neuron, and what it promotes."),
    "promoters": _own("promoters:promoters", "The neurons that promote a token."),
    "steering": _own("steering:steering", "What is written with a direction added."),
    "image-attention": _own("image_attention:image_attention", "Where each head looks on an image."),
    "rollout": _own("image_attention:rollout", "Attention of all layers together (roll-out)."),
    "positions": _own("image_attention:positions", "How alike the vectors of positions are."),
    "activations": _own("activations:activations", "Every tensor of a pass: shape, range, histogram."),
    "residual": _own("residual:residual", "The residual stream: norms and what layers add."),
    "lens": _own("lens:lens", "What each layer would predict (logit lens)."),
    "attribution": _own("attribution:attribution", "A logit as a sum over the parts of the model."),
}
"""The views by the names of their commands, in the order of the help."""

OLD_NAMES = {"step": "attention-walkthrough"}
"""Names that earlier versions used; they still work."""


def find(name: str) -> ViewEntry:
    """The view of a name.

    Raises:
        UsageError: there is none; the nearest name is given.
    """
    name = OLD_NAMES.get(name, name)
    if name not in VIEWS:
        raise UsageError(f"there is no view {name!r}; {did_you_mean(name, VIEWS)}")
    return VIEWS[name]
