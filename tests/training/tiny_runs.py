"""What tests of whole runs share: settings of a tiny model, and callbacks that end a run or listen to it."""

from __future__ import annotations

import os
import signal
import time

from glassformer.training import Callback

SMALL = [
    "model.n_layer=2", "model.n_head=2", "model.n_embd=16", "model.block_size=11", "tokenizer.kind=characters",
    "training.batch_size=6", "training.sample_every=0", "training.precision=fp32",
]  # fmt: skip


class Die(Callback):
    """The run ends when a step is done, as if its process had been killed."""

    def __init__(self, step: int):
        self.step = step

    def on_step(self, record):
        if record["step"] == self.step:
            raise MemoryError("as if the process had been killed")


class StopAfter(Callback):
    """Presses Ctrl-C when a step is done."""

    def __init__(self, step: int):
        self.step = step

    def on_step(self, record):
        if record["step"] == self.step:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)  # the handler runs between two instructions of this thread


class PoisonAt(Callback):
    """The gradient of one parameter is NaN whenever the batch of a step comes, as from a kernel that overflows."""

    def __init__(self, step: int):
        self.step = step

    def on_start(self, trainer):
        batches, parameter = trainer.batches, trainer.model.blocks[1].feedforward.down.weight
        parameter.register_hook(lambda g: g * float("nan") if batches.step == self.step else g)


class Heard(Callback):
    """Keeps the events."""

    def __init__(self):
        self.events = []

    def on_event(self, record):
        self.events.append(record)
