"""How long things take on this machine, by doing them for a few seconds with a scratch model that is then forgotten.

What is timed is the loop's own update (forward, backward, clip, optimizer) on random ids, a piece of an evaluation, and
a few tokens of a sample. No trace is left: the random generators stand as before, and no model of a run is touched.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from glassformer.evaluation import evaluate_loss
from glassformer.generation import Engine, Request, Sampling
from glassformer.models import Decoder, ModelConfig, flops_per_token
from glassformer.processors.tokenizers import Tokenizer
from glassformer.recipes.held_out import EVAL_WINDOW, windows_at_once
from glassformer.recipes.memory import libraries_bytes
from glassformer.recipes.schema import TrainingSection
from glassformer.tasks import OBJECTIVES
from glassformer.training import LossModule, TrainStep, build_optimizer
from glassformer.training.compiling import compiled
from glassformer.training.utilisation import peak_flops

SECONDS = 5.0  # what a probe may take
LEAST_STEPS = 3
COMPILING = 35.0  # seconds that compiling takes at the most (15 to 35 seen on two cores)
WORTH_COMPILING = 150.0  # a run shorter than this cannot win them back: compiled is a third faster at best


@dataclass(frozen=True)
class Probe:
    """What was timed, in seconds.

    step: one step of the whole batch on one device, on average. first: what the first step took longer than that.
    evaluation_token: one target of an evaluation. sample_token: one token of a sample. steps: how many were timed.
    took: all of it together. scaled: whether fewer sequences than a step's were timed, because they take too long, and
    the rest is proportion.
    """

    step: float
    first: float
    evaluation_token: float
    sample_token: float
    steps: int
    took: float
    scaled: bool


def probe(
    config: ModelConfig,
    t: TrainingSection,
    *,
    device: str = "cpu",
    precision: str = "fp32",
    seconds: float = SECONDS,
    tokenizer: Tokenizer | None = None,
) -> Probe:
    """Time steps of this model for at most about `seconds`.

    `t.batch_size` sequences make a step, `t.micro_batch_size` go through at once; both are of this device alone. With a
    tokenizer a sample is timed as it is written, else the model's share of that alone.
    """
    started = time.perf_counter()
    with torch.random.fork_rng(devices=[device] if device.startswith("cuda") else []):
        stepper = Stepper(config, t, device, precision, sequences=_as_many_as(config, t, device, precision, seconds))
        # the mean, since on a busy machine some steps wait, and the run will have to wait as often
        step = stepper.time(0.7 * seconds, LEAST_STEPS, statistics.fmean)
        evaluation = _evaluation_token(stepper.model, 0.15 * seconds)
        sample = _sample_token(stepper.model, tokenizer, 0.15 * seconds)
    took = time.perf_counter() - started
    scaled = stepper.sequences < stepper.batch_size
    first = max(0.0, stepper.first - sum(step))
    return Probe(stepper.whole(step), first, evaluation, sample, stepper.done, took, scaled)


class Stepper:
    """A scratch model that can be trained on random ids, a step at a time.

    Args:
        sequences: of a step; when fewer than `t.batch_size`, the time of the others is their proportion, and the
            optimizer's is counted once.
    """

    def __init__(
        self,
        config: ModelConfig,
        t: TrainingSection,
        device: str,
        precision: str,
        *,
        sequences: int,
        fast: bool = False,
    ):
        assert isinstance(t.batch_size, int) and t.micro_batch_size and t.learning_rate
        libraries_bytes()  # a plan of memory wants to know before this model leaves traces
        self.device, self.batch_size, self.sequences, self.done = device, t.batch_size, sequences, 0
        self.model = Decoder(config, **t.dropouts).to(device).train()
        loss: torch.nn.Module = LossModule(self.model, OBJECTIVES["next_token"]().loss)
        loss = compiled(loss, device) if fast else loss
        optimizer = build_optimizer(
            t.optimizer,
            self.model,
            learning_rate=1e-9,
            matrix_learning_rate=1e-9,
            betas=(t.beta1, t.beta2),
            weight_decay=0.0,
        )
        micro = min(t.micro_batch_size, sequences)
        self.train_step = TrainStep(loss, optimizer, micro_batch_size=micro, grad_clip=t.grad_clip, precision=precision)
        ids = torch.randint(config.vocab_size, (sequences, config.block_size + 1), device=device)
        self.batch = (ids[:, :-1].contiguous(), ids[:, 1:].contiguous())

    def time(
        self, seconds: float, least: int, average: Callable[[list[float]], float] = statistics.median
    ) -> tuple[float, float]:
        """Average seconds (of the batch's gradient, of the update). The first step warms up (`first`), and counts only
        when there is no time for a second."""
        gradients: list[float] = []
        updates: list[float] = []
        until = time.perf_counter() + seconds
        while len(gradients) <= least or time.perf_counter() < until:
            started = time.perf_counter()
            measured = self.train_step.forward_backward(self.batch).read()
            self._wait()
            between = time.perf_counter()
            self.train_step.optimizer_step(measured, 1.0)
            self.train_step.clear()
            self._wait()
            gradients.append(between - started)
            updates.append(time.perf_counter() - between)
            if time.perf_counter() > until and len(gradients) >= 2:
                break
        self.done, self.first = len(gradients) - 1 or 1, gradients[0] + updates[0]
        return average(gradients[1:] or gradients), average(updates[1:] or updates)

    def whole(self, step: tuple[float, float]) -> float:
        """Seconds of a step of the whole batch."""
        return step[0] * self.batch_size / self.sequences + step[1]

    def _wait(self) -> None:
        if self.device.startswith("cuda"):
            torch.cuda.synchronize()


def probe_compile(
    config: ModelConfig,
    t: TrainingSection,
    *,
    steps: int,
    device: str = "cpu",
    precision: str = "fp32",
    log: Callable[[str], None] = lambda line: None,
) -> tuple[bool, str]:
    """Whether compiling pays for `steps` steps on this machine, and why: both are run where it could.

    log: is given a line before each of them.

    Compiling takes as long as it takes only the first time; later runs of the same shape find it done.
    """
    with torch.random.fork_rng(devices=[device] if device.startswith("cuda") else []):
        log("timing some steps, to see whether compiling the model pays ...")
        sequences = _as_many_as(config, t, device, precision, SECONDS)
        eager = Stepper(config, t, device, precision, sequences=sequences)
        slow = eager.whole(eager.time(2.0, LEAST_STEPS))
        if slow * steps < WORTH_COMPILING:
            return (
                False,
                f"about {slow * steps:.0f} s in all: too short to win back up to {COMPILING:.0f} s of compiling",
            )
        deterministic = torch.are_deterministic_algorithms_enabled()
        try:
            log(f"compiling it: up to {COMPILING:.0f} s, the first time for a shape ...")
            started = time.perf_counter()
            quick = Stepper(config, t, device, precision, sequences=sequences, fast=True)
            quick.train_step.forward_backward(quick.batch).read()
            quick.train_step.clear()
            cost = time.perf_counter() - started
            log(f"compiled in {cost:.0f} s; timing it ...")
            fast = quick.whole(quick.time(2.0, LEAST_STEPS))
        except RuntimeError as error:  # no C++ compiler, say
            return False, f"it cannot be compiled here: {str(error).splitlines()[0][:80]}"
        finally:
            torch.use_deterministic_algorithms(deterministic)
    pays = fast * steps + cost < slow * steps
    both = f"{1000 * slow:.0f} ms a step as it is, {1000 * fast:.0f} ms compiled, which took {cost:.0f} s"
    return pays, f"{both}: {'pays' if pays else 'does not pay'} over {steps:,} steps"


def tokens_per_second(
    config: ModelConfig, t: TrainingSection, batch_size: int, *, device: str = "cpu", precision: str = "fp32"
) -> float:
    """Tokens a second with `batch_size` sequences at once, from about half a second of steps."""
    tried = t.model_copy(update={"batch_size": batch_size, "micro_batch_size": batch_size})
    with torch.random.fork_rng(devices=[device] if device.startswith("cuda") else []):
        stepper = Stepper(config, tried, device, precision, sequences=batch_size)
        return batch_size * config.block_size / stepper.whole(stepper.time(0.5, 2))


def _as_many_as(config: ModelConfig, t: TrainingSection, device: str, precision: str, seconds: float) -> int:
    """How many of a step's sequences to time: all of them, or, where arithmetic says that a step would take more than a
    fifth of the time, one micro-batch or less."""
    assert isinstance(t.batch_size, int) and t.micro_batch_size
    a_second = 0.5 * peak_flops(device, precision) / flops_per_token(config).training / config.block_size
    possible = max(1, int(seconds / 5 * a_second))
    return t.batch_size if possible >= t.batch_size else min(t.micro_batch_size, possible)


def _evaluation_token(model: Decoder, seconds: float) -> float:
    """Seconds of one target in an evaluation, as `recipes.evaluate` cuts the text, or in a piece of that."""
    config, device = model.config, next(model.parameters()).device
    T = min(config.block_size, EVAL_WINDOW)
    a_second = 0.5 * peak_flops(str(device), "fp32") / flops_per_token(config, T).forward
    B = max(1, min(windows_at_once(model.config, device.type, T), int(seconds * a_second) // T))
    ids = torch.randint(config.vocab_size, (B, T), device=device)
    return _quickest(lambda: evaluate_loss(model, [(ids, ids)])) / (B * T)


def _sample_token(model: Decoder, tokenizer: Tokenizer | None, seconds: float) -> float:
    """Seconds of one more token of a sample; without a tokenizer those of the model alone."""
    model.eval()
    if tokenizer is None:
        return _forward_token(model)
    engine = Engine(model, tokenizer, max_rows=1)
    engine.submit(Request((0,), max_new_tokens=10, sampling=Sampling(temperature=0.8), end_tokens=frozenset()))
    engine.step()  # the prompt
    started, n = time.perf_counter(), 0
    while engine.busy and (n == 0 or time.perf_counter() < started + seconds):
        engine.step()
        n += 1
    return (time.perf_counter() - started) / max(1, n)


@torch.inference_mode()
def _forward_token(model: Decoder) -> float:
    """Seconds of the model for one more token, with half a context cached."""
    cache, half = model.new_cache(1), max(1, model.config.block_size // 2)
    device = next(model.parameters()).device
    model(torch.zeros(1, half, dtype=torch.int64, device=device), cache=cache)

    def one() -> None:
        model(torch.zeros(1, 1, dtype=torch.int64, device=device), cache=cache)
        cache.rewind(half)

    return _quickest(one, 5) if model.config.block_size > half else 0.0


def _quickest(what: Callable[[], object], times: int = 2) -> float:
    best = float("inf")
    for _ in range(times):
        started = time.perf_counter()
        what()
        best = min(best, time.perf_counter() - started)
    return best
