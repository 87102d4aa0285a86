"""Level 7: the loop that turns batches into weights, and the run folder where everything about it is kept."""

from glassformer.renamed import keep_old_names
from glassformer.training.callbacks import Callback
from glassformer.training.checkpoints import CheckpointWriter, latest_checkpoint, load_checkpoint
from glassformer.training.devices import autocast, available_memory, choose_device, choose_precision
from glassformer.training.distributed import World
from glassformer.training.loop import Interrupted, Trainer, TrainingSettings
from glassformer.training.monitor import ON_DIVERGENCE
from glassformer.training.optimizers import OPTIMIZERS, AdamW, Muon, build_optimizer
from glassformer.training.report import ReportWriter, write_report
from glassformer.training.run_folder import RunFolder
from glassformer.training.run_history import RunHistory
from glassformer.training.schedules import SCHEDULES, Extended, Schedule
from glassformer.training.sharding import SHARDINGS
from glassformer.training.step import LossModule, TrainStep
from glassformer.training.tracking import TRACKERS, trackers

__all__ = [
    "ON_DIVERGENCE",
    "OPTIMIZERS",
    "SCHEDULES",
    "SHARDINGS",
    "TRACKERS",
    "AdamW",
    "Callback",
    "CheckpointWriter",
    "Extended",
    "Interrupted",
    "LossModule",
    "Muon",
    "ReportWriter",
    "RunFolder",
    "RunHistory",
    "Schedule",
    "TrainStep",
    "Trainer",
    "TrainingSettings",
    "World",
    "autocast",
    "available_memory",
    "build_optimizer",
    "choose_device",
    "choose_precision",
    "latest_checkpoint",
    "load_checkpoint",
    "trackers",
    "write_report",
]

keep_old_names(__name__)
