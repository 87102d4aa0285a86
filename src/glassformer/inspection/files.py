"""Files as a model reads them: an image, a sound or an episode becomes the tensor that `reading.read` takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from glassformer.data.images import SUFFIXES
from glassformer.data.trajectories import read_trajectories
from glassformer.data.trajectory_sets import TRAJECTORY_SETS
from glassformer.errors import UsageError
from glassformer.inspection.reading import check_place


def is_picture(text: str) -> bool:
    """Whether a text is the name of an image file."""
    return Path(text).suffix.lower() in SUFFIXES


def features_of(model: Any, processor: Any, source: str) -> Tensor:
    """What a model of images, sound or episodes reads, as a tensor that `read` takes.

    source: an image file (channels, size, size); a sound file, (mel bands, frames) of one window; or an episode,
        (K, 2 + state size + action size): return-to-go, state, action and timestep of each step. An episode is one of
        an `.npz` file or a named set, as FILE, FILE:EPISODE or FILE:EPISODE:STEP; the first ones are taken where no
        numbers are given.

    Raises:
        DataError: there is no such file, or it is damaged. UsageError: no such episode or step, or of other sizes.
    """
    if model.reads == "frames":
        samples = processor.samples(source)
        if len(samples) > processor.n_samples:
            seconds = len(samples) / processor.rate
            raise UsageError(
                f"{source}: {seconds:.0f} seconds, and the model reads {processor.seconds} at once; cut it"
            )
        return torch.from_numpy(processor.log_mel(samples, processor.n_frames))
    if model.reads != "trajectory":
        return torch.from_numpy(processor.encode(source))
    name, *places = source.split(":")
    if len(places) > 2 or not all(place.isdecimal() for place in places):
        raise UsageError(f"{source}: give FILE.npz, FILE.npz:EPISODE or FILE.npz:EPISODE:STEP, numbers from 0")
    number, first = ([int(place) for place in places] + [0, 0])[:2]
    found = TRAJECTORY_SETS[name].trajectories() if name in TRAJECTORY_SETS else read_trajectories(name)
    episode = found.episodes[check_place("episode", number, len(found.episodes))]
    first = check_place("step", first, len(episode))
    returns, states, actions = processor.encode(episode)
    part = slice(first, first + model.config.block_size // 3)
    timesteps = np.arange(len(episode), dtype=np.float32)
    columns = returns[part, None], states[part], actions[part], timesteps[part, None]
    return torch.from_numpy(np.concatenate(columns, axis=1))
