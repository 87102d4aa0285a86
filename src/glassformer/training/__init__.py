"""Level 7: the loop that turns batches into weights, and the run folder where everything about it is kept."""

from glassformer.training.checkpoints import latest_checkpoint, load_checkpoint, save_checkpoint
from glassformer.training.loop import Interrupted, Listener, Trainer, TrainingSettings
from glassformer.training.optimizers import OPTIMIZERS, AdamW, Muon, build_optimizer
from glassformer.training.precision import autocast, available_memory, choose_device, choose_precision, set_threads
from glassformer.training.run_folder import RunFolder
from glassformer.training.schedules import SCHEDULES, Schedule

__all__ = [
    "OPTIMIZERS",
    "SCHEDULES",
    "AdamW",
    "Interrupted",
    "Listener",
    "Muon",
    "RunFolder",
    "Schedule",
    "Trainer",
    "TrainingSettings",
    "autocast",
    "available_memory",
    "build_optimizer",
    "choose_device",
    "choose_precision",
    "latest_checkpoint",
    "load_checkpoint",
    "save_checkpoint",
    "set_threads",
]
