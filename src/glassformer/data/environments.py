"""Environments of gymnasium by their ids, our own among them, and roll-outs of policies that were written by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from glassformer.data.trajectories import Trajectory
from glassformer.errors import MissingExtraError, UsageError, did_you_mean, one_line

OWN = {"KeyToDoor-v0": "glassformer.data.key_to_door:KeyToDoor"}
Policy = Callable[[np.ndarray], Any]
"""What an observation leads to."""


def make_environment(name: str, *, render: bool = False) -> Any:
    """An environment with a vector as observation, and one of several actions or a vector as action.

    render: with pictures as text (`render()`), where it has some.

    Raises:
        MissingExtraError: without gymnasium.
        UsageError: there is no environment of this id, it needs a package, or it has other spaces.
    """
    try:
        import gymnasium
    except ImportError:
        raise MissingExtraError("environments", "environments") from None
    for own, place in OWN.items():
        if own not in gymnasium.registry:
            gymnasium.register(own, entry_point=place)
    if name not in gymnasium.registry:
        shown = one_line(name, most=60)
        raise UsageError(f"there is no environment {shown}; {did_you_mean(name, gymnasium.registry)}")
    try:
        env = gymnasium.make(name)
        if render and "ansi" in env.metadata.get("render_modes", ()):
            env = gymnasium.make(name, render_mode="ansi")
    except (gymnasium.error.Error, ImportError) as error:
        raise UsageError(f"{name} cannot be opened ({one_line(error, most=120)}); install what it needs") from None
    sees, acts = env.observation_space, env.action_space
    boxes, discrete = gymnasium.spaces.Box, isinstance(acts, gymnasium.spaces.Discrete)
    fits = isinstance(sees, boxes) and len(sees.shape) == 1
    if not fits or not (discrete or (isinstance(acts, boxes) and len(acts.shape) == 1)):
        raise UsageError(f"{name} gives {one_line(sees, most=60)} and takes {one_line(acts, most=60)}; take vectors")
    return env


def roll_out(env: Any, policy: Policy, *, seed: int) -> Trajectory:
    """One episode of a policy."""
    observation, _ = env.reset(seed=seed)
    rows: list[tuple[Any, Any, float]] = []
    ended = False
    while not ended:
        action = policy(observation)
        following, reward, terminated, truncated, _ = env.step(action)
        rows.append((observation, action, float(reward)))
        observation, ended = following, terminated or truncated
    observations, actions, rewards = (np.array(part) for part in zip(*rows, strict=True))
    kept = actions.astype(np.int64) if actions.ndim == 1 else actions.astype(np.float32)
    return Trajectory(observations.astype(np.float32), kept, rewards.astype(np.float32))


def random_policy(env: Any, random: np.random.Generator) -> Policy:
    """Any action, all equally likely."""
    space = env.action_space
    if hasattr(space, "n"):
        return lambda _: int(random.integers(space.n))
    return lambda _: random.uniform(space.low, space.high)


def cartpole(centring: float) -> Policy:
    """Keeps the pole up by its angle and speed, and with `centring` > 0 the cart in the middle; 1 is an expert. With
    less than 0 the cart runs away from the middle, and leaves the track sooner or later."""

    def act(observation: np.ndarray) -> int:
        x, speed, theta, turn = observation.tolist()
        return int(3 * theta + turn + centring * (0.1 * x + 0.2 * speed) > 0)

    return act


def cartpole_expert(env: Any, random: np.random.Generator) -> Policy:
    """500 of 500."""
    return cartpole(1.0)


def cartpole_drifting(least: float, most: float) -> Any:
    """Keeps the pole up and leaves the track, sooner the more it drifts: after 40 to 500 steps from 3 on, mostly less
    than 400 from 6 on. Each episode has a drift of its own, from `least` to `most`."""
    return lambda env, random: cartpole(-random.uniform(least, most))


def pendulum_expert(env: Any, random: np.random.Generator) -> Policy:
    """Pumps energy until the pendulum is nearly upright, then holds it there (a linear law)."""

    def act(observation: np.ndarray) -> np.ndarray:
        cosine, sine, turn = observation.tolist()
        theta = math.atan2(sine, cosine)
        energy = turn**2 / 6 + 5 * (cosine - 1)  # of m = l = 1, g = 10; 0 upright and at rest
        if cosine > 0.85 and abs(energy) < 3:
            torque = -12 * theta - 3 * turn
        else:
            torque = 2.0 if turn * -energy >= 0 else -2.0
        return np.array([min(max(torque, -2.0), 2.0)])

    return act


def noisy(policy: Callable[[Any, np.random.Generator], Policy], least: float, most: float) -> Any:
    """A policy that in a share of the steps does anything; each episode has its own share, from `least` to `most`."""

    def make(env: Any, random: np.random.Generator) -> Policy:
        share, better, anything = random.uniform(least, most), policy(env, random), random_policy(env, random)
        return lambda observation: (anything if random.random() < share else better)(observation)

    return make
