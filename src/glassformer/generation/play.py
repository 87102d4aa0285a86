"""A Decision Transformer plays: a return is asked for, and each action is drawn from what the model expects of it.

    asked 200     R0 = 200   s0   a0      R1 = R0 - reward   s1   a1   ...

Episodes are played side by side, each with its own environment, seeds and random numbers, so that none depends on its
neighbours. A cache holds the context until it is full; then the newer half of the steps is read again.
Chen et al. 2021, https://arxiv.org/abs/2106.01345, algorithm 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from glassformer.data.environments import make_environment
from glassformer.data.trajectories import Trajectories, Trajectory
from glassformer.errors import UsageError
from glassformer.generation.eval_mode import evaluating
from glassformer.generation.sampling import sample
from glassformer.processors.trajectory import TrajectoryProcessor

FIRST_SEED = 1_000_000  # the named sets of trajectories begin with the seeds below
MAX_EPISODES = 10_000


@dataclass
class Episode:
    """What happened in an episode of T steps.

    asked: the return that was asked for; None: the model reads none. returns_to_go: what was still asked for before
    each step. policy: probabilities (T, actions) of each action; of continuous ones nothing. frames: pictures as text.
    cut: it was stopped where the model knows no further timestep.
    """

    asked: float | None
    seed: int
    observations: list[np.ndarray] = field(default_factory=list)
    actions: list[Any] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    returns_to_go: list[float] = field(default_factory=list)
    policy: list[list[float]] = field(default_factory=list)
    frames: list[str] = field(default_factory=list)
    cut: bool = False

    @property
    def got(self) -> float:
        """The return."""
        return float(sum(self.rewards))


def play(
    model: Any,
    processor: TrajectoryProcessor | None,
    environment: str | None = None,
    *,
    target_return: float | None = None,
    episodes: int = 1,
    seed: int = 0,
    temperature: float | None = None,
    render: bool = False,
) -> list[Episode]:
    """Play episodes side by side.

    Args:
        environment: an id of gymnasium; left out, the one that the model learned from.
        target_return: what is asked for; left out, the best return of the training episodes.
        temperature: divides the logits of discrete actions; 0 (default) takes the most likely one, 1 draws as the model
            expects.
        render: also keep pictures, where the environment draws text.

    Raises:
        UsageError: an argument is missing or out of range, or the environment does not fit the model.
        MissingExtraError: without gymnasium.
    """
    if processor is None:
        raise UsageError("this model has no preprocessor_config.json of trajectories; train one, or copy it whole")
    name = environment or processor.environment
    if name is None:
        raise UsageError("the model does not know its environment; name one: --env CartPole-v1")
    if target_return is not None and not (processor.reads_returns and math.isfinite(target_return)):
        rule = "is no finite number; give one" if processor.reads_returns else "and this model reads none; leave it out"
        raise UsageError(f"return={target_return:g} {rule}")
    if processor.reads_returns and target_return is None and (target_return := processor.best_return) is None:
        raise UsageError("the model does not know which return is good; give one: --return 200")
    if not 1 <= episodes <= MAX_EPISODES:
        raise UsageError(f"episodes={episodes} is out of range; use 1 to {MAX_EPISODES:,}")
    if temperature is not None and (temperature < 0 or not processor.n_actions):
        rule = "is too small; use 0 or more" if processor.n_actions else "is for actions to choose from; leave it out"
        raise UsageError(f"temperature={temperature:g} {rule}")
    envs = [make_environment(name, render=render) for _ in range(episodes)]
    check_fits(envs[0], processor, name)
    limit = min(envs[0].spec.max_episode_steps or model.config.max_timestep, model.config.max_timestep)
    with evaluating(model):
        return _Games(model, processor, envs, target_return, seed, temperature or 0.0).run(limit)


def check_fits(env: Any, processor: TrajectoryProcessor, name: str) -> None:
    """Raise `UsageError` where observations or actions of an environment are of other sizes than the model's."""
    acts = env.action_space
    theirs = env.observation_space.shape[0], int(getattr(acts, "n", 0)), 0 if hasattr(acts, "n") else acts.shape[0]
    continuous = 0 if processor.n_actions else processor.action_size
    ours = len(processor.state_mean), processor.n_actions, continuous
    if theirs != ours:
        words = "observations of {} numbers, {} actions to choose from, actions of {} numbers"
        known = f"; it learned from {processor.environment}" if processor.environment else ""
        raise UsageError(f"{name} has {words.format(*theirs)}, and the model reads {words.format(*ours)}{known}")


class _Games:
    """Episodes in play, all at the same step."""

    def __init__(
        self, model: Any, processor: TrajectoryProcessor, envs: Sequence[Any], asked: float | None, seed: int,
        temperature: float,
    ):  # fmt: skip
        self.model, self.processor, self.temperature = model, processor, temperature
        seeds = range(FIRST_SEED * (1 + seed), FIRST_SEED * (1 + seed) + len(envs))
        self.envs, self.asked = list(envs), asked
        self.episodes = [Episode(asked, s) for s in seeds]
        self.generators = [torch.Generator().manual_seed(s) for s in seeds]
        self.weight = next(model.parameters())
        self.cache = model.new_cache(len(envs))
        self.first = 0  # step that the context begins with

    def run(self, limit: int) -> list[Episode]:
        """Until all have ended, or for `limit` steps."""
        alive = list(range(len(self.envs)))
        seen = [self.envs[i].reset(seed=self.episodes[i].seed)[0] for i in alive]
        for step in range(limit):
            for i, observation in zip(alive, seen, strict=True):
                episode = self.episodes[i]
                episode.observations.append(np.asarray(observation, dtype=np.float32))
                episode.returns_to_go.append((self.asked or 0.0) - episode.got)
                if self.envs[i].render_mode == "ansi":
                    episode.frames.append(str(self.envs[i].render()))
            actions = self._act(alive, step)
            seen, kept = [], []
            for row, (i, action) in enumerate(zip(alive, actions, strict=True)):
                observation, reward, terminated, truncated, _ = self.envs[i].step(action)
                self.episodes[i].actions.append(action)
                self.episodes[i].rewards.append(float(reward))
                if not (terminated or truncated):
                    seen.append(observation)
                    kept.append(row)
            if not kept:
                break
            if len(kept) < len(alive):
                alive = [alive[row] for row in kept]
                self.cache.reorder(torch.tensor(kept, device=self.weight.device))
        else:
            for i in alive:
                self.episodes[i].cut = True
        return self.episodes

    def _act(self, alive: list[int], step: int) -> list[Any]:
        """The next action of each episode."""
        steps = self.model.config.block_size // self.model.tokens_a_step
        if step - self.first >= steps:
            self.first = step - steps // 2
            self.cache.rewind(0)
        begin = self.first + self.cache.length // self.model.tokens_a_step
        out_BA = self._read(alive, slice(begin, step + 1))[:, -1].float().cpu()
        if not self.processor.n_actions:
            return list(self.processor.decode_actions(out_BA.numpy()))
        if self.temperature:
            p_BA = (out_BA / self.temperature).softmax(dim=-1)
            chosen = sample(p_BA, [self.generators[i] for i in alive])
        else:
            p_BA = out_BA.softmax(dim=-1)
            chosen = p_BA.argmax(dim=-1)
        for i, p_A in zip(alive, p_BA.tolist(), strict=True):
            self.episodes[i].policy.append(p_A)
        return [int(action) for action in chosen]

    def _read(self, alive: list[int], steps: slice) -> Tensor:
        """What the model says after these steps: (B, K, A)."""
        p, rows = self.processor, [self.episodes[i] for i in alive]
        returns_BK = p.encode_returns([e.returns_to_go[steps] for e in rows])
        states_BKS = p.encode_states(np.array([e.observations[steps] for e in rows]))
        done = [e.actions[steps.start : steps.stop - 1] for e in rows]
        actions_BKA = (
            p.encode_actions(np.array(done)) if done[0] else np.zeros((len(rows), 0, p.action_size), np.float32)
        )
        parts = [torch.from_numpy(x).to(self.weight) for x in (returns_BK, states_BKS, actions_BKA)]
        timesteps_BK = torch.arange(steps.start, steps.stop, device=self.weight.device).expand(len(rows), -1)
        return self.model(*parts, timesteps_BK, cache=self.cache)


def trajectories_of(episodes: Sequence[Episode], environment: str | None) -> Trajectories:
    """The episodes as data, to be written, looked at or learned from."""
    rows = []
    for e in episodes:
        actions = np.array(e.actions)
        kept = actions.astype(np.int64 if actions.ndim == 1 else np.float32)
        rows.append(Trajectory(np.array(e.observations), kept, np.array(e.rewards, dtype=np.float32)))
    return Trajectories(rows, environment)
