"""One model for all, used as the model of one use: `draw`, `classify` and `play` then treat it like a specialist.

draw       the rows of its tables that belong to images: a smaller decoder
classify   how probable the model finds the name of each class after the pixels
play       a decoder of tokens in the place of a decoder of trajectories
"""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from glassformer.errors import UsageError
from glassformer.generation.engine import Engine
from glassformer.generation.requests import Request
from glassformer.generation.settings import Sampling
from glassformer.layers import KVCache
from glassformer.models import Decoder, build_model
from glassformer.processors.generalist import CAPTION_END, GeneralistProcessor
from glassformer.processors.image_tokens import ImageTokenProcessor
from glassformer.processors.trajectory import Triples

ROWS = 64  # images that are read together
LONGEST_CAPTION = 40  # tokens that are written at most


def drawing_part(model: Decoder, processor: GeneralistProcessor) -> Decoder:
    """The decoder that writes images alone, in eval mode: its ids are those of `processor.images`. Its probabilities
    are those of the whole model, given that an image's word comes."""
    ids, state = processor.image_ids, dict(model.state_dict())
    for name in ("embedding.token.weight", "head.weight", "head.bias"):
        if name in state:
            state[name] = state[name][ids.start : ids.stop]
    part: Any = build_model(model.config.model_copy(update={"vocab_size": len(ids)}))
    part.load_state_dict(state)
    return part.to(next(model.parameters()).device).eval()  # type: ignore[no-any-return]


def painter(bundle: Any) -> tuple[Any, ImageTokenProcessor]:
    """The model that draws and the processor of its images: of one model for all the part, else the whole.

    Raises:
        UsageError: it writes no images.
    """
    processor = bundle.token_processor
    if processor is None:
        raise UsageError("this model writes no images; train one with task.kind=image_tokens")
    if isinstance(processor, ImageTokenProcessor):
        return bundle.model, processor
    return drawing_part(bundle.model, processor), processor.images


def write_captions(model: Decoder, processor: GeneralistProcessor, levels_ND: np.ndarray) -> list[str]:
    """What the model writes about images (levels of pixels in raster order), the most likely token each time."""
    end = processor.text(CAPTION_END).tolist()
    requests = [
        Request(
            tuple((levels_D + processor.image_ids.start).tolist()),
            max_new_tokens=min(LONGEST_CAPTION, model.config.block_size - len(levels_D)),
            sampling=Sampling(temperature=0),
            end_tokens=frozenset(end),
        )
        for levels_D in levels_ND
    ]
    written: dict[int, list[int]] = {}
    for event in Engine(model, processor.tokenizer, max_rows=min(ROWS, len(requests))).run(*requests):
        if event.piece is not None:
            written.setdefault(event.request, []).append(event.piece.token)
    return [processor.tokenizer.decode(written[number]) for number in range(len(requests))]


class CaptionClassifier(nn.Module):
    """One model for all in the place of an image classifier: the logits of a class are log p of its name and a line
    end, given the pixels."""

    reads, answers = "patches", frozenset({"class"})

    def __init__(self, model: Decoder, processor: GeneralistProcessor):
        super().__init__()
        self.model, self.processor, self.training = model, processor, model.training
        self.classifier = model.head
        self.config = SimpleNamespace(
            n_classes=len(processor.images.labels), image_size=processor.images.size[0], reads="patches"
        )

    def forward(self, pixels_B1HW: Tensor) -> Tensor:
        """Images of 0 ... 255 -> (B, classes)."""
        p = self.processor
        levels_BD = (pixels_B1HW * ((p.images.levels - 1) / 255)).round().long().flatten(1) + p.image_ids.start
        found = []
        for label in p.images.labels:
            caption_L = torch.from_numpy(p.caption(label)).to(levels_BD.device)
            captions_BL = caption_L.expand(len(levels_BD), -1)
            logits = self.model(torch.cat([levels_BD, captions_BL[:, :-1]], dim=1))[:, levels_BD.shape[1] - 1 :]
            found.append(logits.float().log_softmax(dim=-1).gather(2, captions_BL[..., None]).sum(dim=(1, 2)))
        return torch.stack(found, dim=1)

    def sequence_logits(self, logits_BC: Tensor) -> Tensor:
        return logits_BC


class TokenPlayer(nn.Module):
    """One model for all in the place of a `TrajectoryDecoder`: steps become tokens, and the logits of the action tokens
    are what to do next."""

    reads, answers = "trajectory", frozenset({"action"})

    def __init__(self, model: Decoder, processor: GeneralistProcessor):
        super().__init__()
        self.model, self.processor, self.training = model, processor, model.training
        self.tokens_a_step = processor.tokens_a_step
        self.config = SimpleNamespace(block_size=model.config.block_size, max_timestep=processor.longest)

    def new_cache(self, batch_size: int = 1) -> KVCache:
        return self.model.new_cache(batch_size)

    def forward(
        self, returns_BK: Tensor, states_BKS: Tensor, actions_BKA: Tensor, timesteps_BK: Tensor, *, cache: KVCache
    ) -> Tensor:
        """(B, 1, A), at the last state; the arguments are those of `TrajectoryDecoder`. Timesteps are not read."""
        (B, K), p = returns_BK.shape, self.processor
        actions_BKA = torch.cat(
            [actions_BKA, actions_BKA.new_zeros(B, K - actions_BKA.shape[1], actions_BKA.shape[2])], 1
        )
        rows = zip(returns_BK.cpu().numpy(), states_BKS.cpu().numpy(), actions_BKA.cpu().numpy(), strict=True)
        ids_BT = np.stack([p.steps(Triples(*row)).ravel()[:-1] for row in rows])  # the last action is not known
        new_BT = torch.from_numpy(ids_BT[:, cache.length % self.tokens_a_step :]).to(returns_BK.device)
        logits_BV = self.model(new_BT, cache=cache)[:, -1:]
        return logits_BV[..., p.action_ids.start : p.action_ids.stop]


def part_for(command: str, bundle: Any) -> Any:
    """What a command uses of a model: of one model for all the part that fits, else the whole."""
    p = bundle.token_processor
    if command not in ("classify", "play") or not isinstance(p, GeneralistProcessor):
        return bundle
    if command == "play":
        return replace(bundle, model=TokenPlayer(bundle.model, p), processor=p.trajectories)
    return replace(bundle, model=CaptionClassifier(bundle.model, p), processor=p.images.pixels, labels=p.images.labels)
