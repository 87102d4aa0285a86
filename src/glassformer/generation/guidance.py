"""Guidance without a classifier: what the condition adds to the logits, taken several times.

    logits = without + guidance (with - without)          guidance 1: the model as it is; 2: twice what the caption adds

Ho and Salimans 2022, https://arxiv.org/abs/2207.12598, equation 6, with guidance = 1 + w; of tokens in place of noise
as in Make-A-Scene (Gafni et al. 2022, https://arxiv.org/abs/2203.13131). The model has to know what images are like
without a caption: in training some captions are left out whole (`task.drop_captions`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from glassformer.generation.eval_mode import evaluating
from glassformer.generation.filters import filtered_probabilities
from glassformer.generation.sampling import sample
from glassformer.generation.settings import Sampling
from glassformer.models.decoder import Decoder


@torch.inference_mode()
def sample_guided(
    model: Decoder,
    prompts: Sequence[Sequence[int]],
    unconditional: Sequence[Sequence[int]],
    n: int,
    sampling: Sampling,
    *,
    guidance: float,
    n_ids: int,
) -> list[list[int]]:
    """n tokens after each prompt, out of the ids 0 ... n_ids - 1.

    Args:
        unconditional: the same prompts without their condition, all of one length.
        sampling: row i has the seed `seed + i`.
    """
    B, device = len(prompts), next(model.parameters()).device
    generators = [torch.Generator().manual_seed(sampling.seed + i) for i in range(B)]
    cache, written = model.new_cache(2 * B), []
    read_RT = torch.tensor([*prompts, *unconditional], device=device)
    with evaluating(model):
        for _ in range(n):
            with_BV, without_BV = model(read_RT, cache=cache)[:, -1, :n_ids].float().cpu().chunk(2)
            p_BV = filtered_probabilities(without_BV + guidance * (with_BV - without_BV), sampling)
            written.append(sample(p_BV, generators))
            read_RT = written[-1].repeat(2)[:, None].to(device)
    return torch.stack(written, dim=1).tolist()  # type: ignore[no-any-return]
