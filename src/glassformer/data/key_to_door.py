"""Key to door: a grid world whose only reward comes long after the action that earns it.

    room 0, 10 steps     room 1, 20 steps     room 2, at most 10 steps
    . . k . .            . . . . .            . . . . .
    . . . . .            . . . . .            . d . . .
    . a . . .            . . a . .            . . . . .           a agent, k key, d door
    . . . . .            . . . . .            . . . . .
    . . . . .            . . . . .            . . . a .

The door pays 1 if the key was picked up, else nothing. Whether the agent holds it cannot be seen in rooms 1 and 2.
After Mesnard et al. 2020, https://arxiv.org/abs/2011.09464, as in Chen et al. 2021, section 5.4.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

SIDE = 5
STEPS = (10, 20, 10)  # in each room
MOVES = ((-1, 0), (0, 1), (1, 0), (0, -1))  # up, right, down, left
NAMES = ("up", "right", "down", "left")


class KeyToDoor(gymnasium.Env):
    """`KeyToDoor-v0`. An observation: in which room (3 numbers, one of them 1), row and column of the agent, and of the
    key or the door, from 0 to 1; -1 where there is none. Actions: up, right, down, left."""

    metadata = {"render_modes": ["ansi"]}  # noqa: RUF012  # of gymnasium

    def __init__(self, render_mode: str | None = None):
        self.render_mode = render_mode
        self.observation_space = gymnasium.spaces.Box(-1.0, 1.0, (7,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(len(MOVES))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.steps, self.room, self.has_key = 0, 0, False
        self._place(thing=True)
        return self._observation(), {}

    def _place(self, *, thing: bool) -> None:
        """Agent, and key or door, in different cells."""
        agent, other = self.np_random.choice(SIDE * SIDE, size=2, replace=False)
        self.agent = divmod(int(agent), SIDE)
        self.thing: tuple[int, int] | None = divmod(int(other), SIDE) if thing else None

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        (row, column), (down, right) = self.agent, MOVES[int(action)]
        self.agent = min(max(row + down, 0), SIDE - 1), min(max(column + right, 0), SIDE - 1)
        self.steps += 1
        if self.agent == self.thing:
            if self.room == 2:
                return self._observation(), float(self.has_key), True, False, {}
            self.has_key, self.thing = True, None
        if self.steps in (STEPS[0], STEPS[0] + STEPS[1]):
            self.room += 1
            self._place(thing=self.room == 2)
        return self._observation(), 0.0, self.steps == sum(STEPS), False, {}

    def _observation(self) -> np.ndarray:
        thing = (-1.0, -1.0) if self.thing is None else tuple(place / (SIDE - 1) for place in self.thing)
        room = [float(self.room == number) for number in range(3)]
        return np.array([*room, *(place / (SIDE - 1) for place in self.agent), *thing], dtype=np.float32)

    def render(self) -> str:
        """The room as text."""
        cells = [["."] * SIDE for _ in range(SIDE)]
        if self.thing is not None:
            cells[self.thing[0]][self.thing[1]] = "k" if self.room == 0 else "d"
        cells[self.agent[0]][self.agent[1]] = "A" if self.has_key else "a"
        return "\n".join(" ".join(row) for row in cells)
