"""A text, an image or an episode, as a model reads it: ids, labels for axes, one pass through the model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from glassformer.errors import UsageError, plural
from glassformer.generation.beam import beam_search
from glassformer.generation.encoders import around
from glassformer.generation.eval_mode import evaluating
from glassformer.generation.fill_mask import mask_of, with_masks
from glassformer.generation.generate import prompt_ids
from glassformer.generation.requests import check_ids
from glassformer.generation.seq2seq import answer_ids, source_ids, source_rows
from glassformer.generation.speech_tokens import SpeechTokens
from glassformer.generation.transcribe import TranscriptionSettings, decode
from glassformer.models import Encoder, EncoderDecoder, Transformer
from glassformer.processors.tokenizers import Tokenizer

LN2 = math.log(2)  # nats of a bit


@dataclass
class Reading:
    """What goes into a model, with a name for each place.

    ids: (T,) of a decoder or an encoder of text; of an encoder-decoder those that it writes, the start token first.
    labels: a name for each of the T places. source_ids, source_labels: what an encoder-decoder reads. inputs: what a
    model of images, sound, sets, graphs or episodes is called with, by the names of its arguments, one row each.
    """

    model: Any
    tokenizer: Tokenizer | None
    ids: list[int]
    labels: list[str]
    source_ids: list[int] = field(default_factory=list)
    source_labels: list[str] = field(default_factory=list)
    inputs: dict[str, Tensor] = field(default_factory=dict)

    @property
    def is_causal(self) -> bool:
        """Whether what it puts out are logits about the next token."""
        return not isinstance(self.model, Encoder)

    def run(self) -> Tensor:
        """One pass, in eval mode and without gradients: logits (1, T, V) of a decoder and of an encoder-decoder,
        vectors (1, T, C) of an encoder. `trace` gives everything else."""
        device = next(self.model.parameters()).device
        ids_1T = torch.tensor([self.ids], device=device)
        with evaluating(self.model):
            if self.inputs:
                return self.model(**{name: part.to(device) for name, part in self.inputs.items()})
            if self.source_ids:
                return self.model(torch.tensor([self.source_ids], device=device), ids_1T)
            return self.model(ids_1T)

    def class_logits(self) -> Tensor:
        """Of a classifier: (classes,)."""
        with evaluating(self.model):
            return self.model.sequence_logits(self.run())[0]

    def logits(self) -> Tensor:
        """(T, V) in fp32 on the CPU, without those beyond the tokenizer's vocabulary (a padded table). Row t is about
        the token at t + 1; of an encoder about the one at t.

        Raises:
            UsageError: the model predicts no tokens.
        """
        output = self.run()
        if not self.is_causal:
            with evaluating(self.model):
                output = self.model.token_logits(output)
        known = output.shape[-1] if self.tokenizer is None else self.tokenizer.vocab_size
        return output[0, :, :known].float().cpu()


def read(
    model: Any,
    tokenizer: Any,
    text: Any,
    *,
    target: str | None = None,
    source_tokenizer: Tokenizer | None = None,
) -> Reading:
    """A text as this model reads it.

    Args:
        tokenizer: or, of a model of sets or graphs, the processor of what it reads.
        text: of an encoder-decoder what it reads; of a model that reads images, sound or episodes a tensor (see
            `features_of`); of sets and graphs what their processor encodes. In that of an encoder that fills in masks,
            `<mask>` is one.
        target: of an encoder-decoder what it writes; left out, its own answer (greedy).
        source_tokenizer: of what an encoder-decoder reads, where that is another one than it writes.

    Raises:
        UsageError: the text is empty or longer than the model reads, or the model is of a kind that reads no text.
    """
    config = model.config
    if "speech" in model.answers:
        raise UsageError(
            f"this {type(model).__name__} reads characters and says them; glassformer say MODEL TEXT --html FILE draws "
            "where it looks at which time"
        )
    if isinstance(text, Tensor) and "target" in model.answers:
        return _pair_of(model, tokenizer, text, target)
    if isinstance(text, Tensor):
        return _steps(model, text) if model.reads == "trajectory" else _image(model, text)
    if hasattr(tokenizer, "arguments"):
        encoded = tokenizer.encode(text)
        parts = {name: torch.from_numpy(part) for name, part in tokenizer.arguments([encoded]).items()}
        return Reading(model, None, [], tokenizer.names(encoded), inputs=parts)
    if tokenizer is None or model.reads != "text":
        raise UsageError(f"this {type(model).__name__} reads {model.reads} and no text; give it that, or as a tensor")
    if "target" in model.answers:
        return _pair(model, tokenizer, source_tokenizer or tokenizer, text, target)
    if target is not None:
        raise UsageError(f"a {type(model).__name__} writes no target; leave it out")
    if isinstance(model, Encoder):
        ids = around(tokenizer, with_masks(tokenizer, text, mask_of(model, tokenizer)), model, cut=False)
    else:
        ids = prompt_ids(tokenizer, text)
        check_ids(ids, tokenizer, config.vocab_size)
    block_size = getattr(config, "block_size", None)
    if block_size is not None and len(ids) > block_size:
        raise UsageError(
            f"the text has {plural(len(ids), 'token')} and the model reads {block_size} at most; shorten it"
        )
    return Reading(model, tokenizer, ids, labels_of(tokenizer, ids))


def _pair(model: Any, tokenizer: Tokenizer, source_tokenizer: Tokenizer, text: str, target: str | None) -> Reading:
    source = source_ids(source_tokenizer, text)
    check_ids(source, source_tokenizer, source_rows(model.config))
    if target is None:
        (answer,) = answer_ids(model, [source], beam=1, n_tokens=tokenizer.vocab_size)
        written = list(answer.tokens)
    else:
        written = tokenizer.encode(target)
    start = model.config.start_token
    labels = ["<start>", *labels_of(tokenizer, written)]
    return Reading(model, tokenizer, [start, *written], labels, source, labels_of(source_tokenizer, source))


def _pair_of(model: Any, tokenizer: Tokenizer, source: Tensor, target: str | None) -> Reading:
    """An image or a sound and what the model writes about it."""
    stack, start = model.encoder, [model.config.start_token]
    source_labels = _patches(stack, source) if model.reads == "patches" else _frames(stack, source)
    device = next(model.parameters()).device
    special = SpeechTokens.of(model, tokenizer) if model.reads == "frames" else None
    if special is not None:
        start = special.prompt(times=False)
    if target is not None:
        written = tokenizer.encode(target)
    elif special is not None:
        with evaluating(model):
            vectors_1SC = model.encode(source[None].to(device)).vectors_BSC
        settings = TranscriptionSettings(times=False, temperatures=(0.0,))
        written = [*special.text_ids(decode(model, tokenizer, special, vectors_1SC, start, settings)[0].tokens)]
    else:
        most, n = model.config.block_size, tokenizer.vocab_size
        ((best,),) = beam_search(model, source[None].to(device), beam=1, max_new_tokens=most, n_tokens=n)
        written = [*best.tokens[: -1 if best.ended else None]]
    ids = [*start, *written]
    if len(ids) > model.config.block_size:
        raise UsageError(f"{plural(len(ids), 'token')} and the model writes {model.config.block_size}; shorten target")
    labels = ["<start>" if special is None else tokenizer.token_text(i) for i in start]
    inputs = {"source": source[None], "target_BT": torch.tensor([ids])}
    return Reading(model, tokenizer, ids, labels + labels_of(tokenizer, written), [], source_labels, inputs)


def _frames(stack: Any, frames_MF: Tensor) -> list[str]:
    """A name for each vector that the encoder makes of a window of sound, which are two frames each.

    Raises:
        UsageError: it has another shape than the model reads.
    """
    expected = (stack.config.n_mels, 2 * stack.config.block_size)
    if tuple(frames_MF.shape) != expected:
        raise UsageError(f"the sound is {tuple(frames_MF.shape)} and the model reads {expected} (mel bands, frames)")
    return [f"frame {2 * i}" for i in range(stack.config.block_size)]


def _patches(stack: Any, image: Tensor) -> list[str]:
    """A name for each token of an image, row and column of a patch.

    Raises:
        UsageError: it has another shape than the model reads.
    """
    config = stack.config
    expected = (config.n_channels, config.image_size, config.image_size)
    if tuple(image.shape) != expected:
        raise UsageError(f"the image is {tuple(image.shape)} and the model reads {expected} (channels, rows, columns)")
    across = config.image_size // config.patch_size
    patches = [f"{r},{c}" for r in range(across) for c in range(across)]
    return ["<class>"] * (stack.embedding.n_tokens(image.unsqueeze(0)) - len(patches)) + patches


def _image(model: Any, image: Tensor) -> Reading:
    if model.reads != "patches":
        raise UsageError(f"this {type(model).__name__} reads {model.reads} and no images; this view shows none of it")
    labels, inputs = _patches(model, image), {"inputs": image.unsqueeze(0)}
    if model.follows_patches:
        inputs["distances_BTT"] = model.embedding.distances(image.device)
    return Reading(model, None, [], labels, inputs=inputs)


def _steps(model: Any, steps_KN: Tensor) -> Reading:
    c = model.config
    K, sizes = len(steps_KN), (1, c.state_size, c.action_size, 1)
    if steps_KN.dim() != 2 or steps_KN.shape[1] != sum(sizes) or not 0 < 3 * K <= c.block_size:
        expected = f"at most {c.block_size // 3} steps of {sum(sizes)} numbers"
        raise UsageError(f"the steps are {tuple(steps_KN.shape)} and the model reads {expected}")
    returns_1K1, states_1KS, actions_1KA, timesteps_1K1 = steps_KN[None].split(sizes, dim=-1)
    timesteps_1K = timesteps_1K1[..., 0].long()
    if not 0 <= int(timesteps_1K.min()) <= int(timesteps_1K.max()) < c.max_timestep:
        raise UsageError(f"the model knows the timesteps 0 to {c.max_timestep - 1}; give an episode that ends there")
    labels = [f"{kind}:{step}" for step in timesteps_1K[0].tolist() for kind in ("return", "state", "action")]
    inputs = {"returns_BK": returns_1K1[..., 0], "states_BKS": states_1KS, "actions_BKA": actions_1KA}
    return Reading(model, None, [], labels, inputs={**inputs, "timesteps_BK": timesteps_1K})


def labels_of(tokenizer: Tokenizer, ids: Sequence[int]) -> list[str]:
    """Each token as something to show."""
    return [tokenizer.token_text(i) for i in ids]


def stack_of(model: Any, side: str = "decoder") -> tuple[Any, str]:
    """A Transformer, of an encoder-decoder one side of it, and what the names of its taps begin with.

    Raises:
        UsageError: the model is made of other parts.
    """
    stack, prefix = (getattr(model, side), f"{side}.") if isinstance(model, EncoderDecoder) else (model, "")
    if not isinstance(stack, Transformer):
        raise UsageError(f"a {type(model).__name__} has no blocks with a residual stream; take a Transformer")
    return stack, prefix


def reader_of(model: Any, tokenizer: Tokenizer) -> Any:
    """The stack of blocks that reads a text: the encoder of an encoder-decoder, else the model itself.

    Raises:
        UsageError: it is no Transformer, or knows fewer tokens than the tokenizer, which then belongs to another.
    """
    stack, _ = stack_of(model, "encoder")
    if stack.reads != "text":
        raise UsageError(f"this {type(model).__name__} reads {model.reads} and no text; take a model that does")
    if tokenizer.n_text_ids > stack.config.vocab_size:
        own = "; give the tokenizer of what it reads (load_source_tokenizer)" if stack is not model else ""
        raise UsageError(
            f"the model reads {stack.config.vocab_size:,} different tokens and the tokenizer has "
            f"{tokenizer.vocab_size:,}; they do not belong together{own}"
        )
    return stack


def check_place(what: str, place: int, n: int) -> int:
    """A layer, head or position counted as Python does, from 0 or back from the end.

    Raises:
        UsageError: there is none.
    """
    if not -n <= place < n:
        raise UsageError(f"{what}={place} is out of range; there are {plural(n, what)} (0 to {n - 1})")
    return place % n


def check_writes(model: Any) -> None:
    """
    Raises:
        UsageError: the model does not generate text, such as an encoder, or vectors of words.
    """
    if not model.writes:
        raise UsageError(
            f"this {type(model).__name__} reads {model.reads} and does not generate text, so that no token comes next; "
            "use a model that does, or an encoder with <mask> in the text: glassformer fill"
        )
