"""Level 5: one use of a Transformer is one file. `TASKS` names them; a recipe's `task.kind` chooses one.

next_token, induction       the next token of a text; the same, with induction measured
masked_tokens, spans        hidden tokens, removed spans
diffusion                   tokens hidden at any noise level
translate, transcribe       the target sentence; what is said in a sound
classify, tag               a class for the sequence, for each token
classify_images             a class for an image
image_tokens                an image of a class or a caption, pixel by pixel
image_text                  which caption is of which image
captions                    the caption of an image
classify_sets, regress_sets a class or a number for a set of values of any kind
classify_molecules, regress_molecules      the same for a molecule as a graph; regress: a number for a text
reward                      which of two answers people prefer
linear_functions            y of a new linear function, from examples in the prompt
text_to_speech              the speech of a sentence
decision                    the action that led to a return
generalist                  text, captions, images and actions by one model
sft, distill                answers of the assistant; what a larger model expects in them
dpo, kto                    preferred answers, answers with a thumb up or down
ppo, grpo                   answers that a reward function scores higher

base                        what every task has: Task, Loss, Score, Batches
text, examples, sources     the two kinds of data
regression                  what tasks share that predict a number
losses, held_out            cross-entropies; how an evaluation reads a text
settings                    what a task takes from a recipe
"""

from glassformer.errors import UsageError
from glassformer.plugins import load_installed, unknown
from glassformer.renamed import keep_old_names
from glassformer.tasks.base import Batch, Batches, Loss, Score, Task
from glassformer.tasks.captions import Captions
from glassformer.tasks.classify import Classify
from glassformer.tasks.classify_images import ClassifyImages
from glassformer.tasks.decision import Decision
from glassformer.tasks.diffusion import Diffusion
from glassformer.tasks.distill import Distill
from glassformer.tasks.dpo import DPO
from glassformer.tasks.examples import ExampleTask
from glassformer.tasks.generalist import Generalist
from glassformer.tasks.grpo import GRPO
from glassformer.tasks.image_text import ImageText
from glassformer.tasks.image_tokens import ImageTokens
from glassformer.tasks.induction import InductionTask
from glassformer.tasks.kto import KTO
from glassformer.tasks.linear_functions import LinearFunctions
from glassformer.tasks.losses import linear_cross_entropy
from glassformer.tasks.masked_tokens import MaskedTokens
from glassformer.tasks.molecules import ClassifyMolecules, RegressMolecules
from glassformer.tasks.next_token import NextToken, evaluate_loss, window_losses
from glassformer.tasks.ppo import PPO
from glassformer.tasks.regress import Regress
from glassformer.tasks.reward import Reward, rewards
from glassformer.tasks.sets import ClassifySets, RegressSets
from glassformer.tasks.settings import Choice, DataSettings, RunSettings, TaskSettings, TokenizerSettings
from glassformer.tasks.sft import SFT
from glassformer.tasks.spans import Spans
from glassformer.tasks.tag import Tag
from glassformer.tasks.text import TextTask
from glassformer.tasks.text_to_speech import TextToSpeech
from glassformer.tasks.transcribe import Transcribe
from glassformer.tasks.translate import Translate

TASKS: dict[str, type[Task]] = {
    "captions": Captions,
    "classify": Classify,
    "classify_images": ClassifyImages,
    "classify_molecules": ClassifyMolecules,
    "classify_sets": ClassifySets,
    "decision": Decision,
    "diffusion": Diffusion,
    "distill": Distill,
    "dpo": DPO,
    "generalist": Generalist,
    "grpo": GRPO,
    "image_text": ImageText,
    "image_tokens": ImageTokens,
    "induction": InductionTask,
    "kto": KTO,
    "linear_functions": LinearFunctions,
    "masked_tokens": MaskedTokens,
    "next_token": NextToken,
    "ppo": PPO,
    "regress": Regress,
    "regress_molecules": RegressMolecules,
    "regress_sets": RegressSets,
    "reward": Reward,
    "sft": SFT,
    "spans": Spans,
    "tag": Tag,
    "text_to_speech": TextToSpeech,
    "transcribe": Transcribe,
    "translate": Translate,
}
RENAMED = {"sequence_class": "classify", "target_sentence": "translate", "token_class": "tag"}
"""Kinds by the names that recipes of older versions have."""


def task_kind(name: str) -> str:
    """Today's name of a kind of task.

    Raises:
        UsageError: there is no such kind.
    """
    kind = RENAMED.get(name, name)
    if kind not in TASKS:
        load_installed()
    if kind not in TASKS:
        raise UsageError(unknown("task.kind", name, TASKS))
    return kind


__all__ = [
    "DPO",
    "GRPO",
    "KTO",
    "PPO",
    "SFT",
    "TASKS",
    "Batch",
    "Batches",
    "Captions",
    "Choice",
    "Classify",
    "ClassifyImages",
    "ClassifyMolecules",
    "ClassifySets",
    "DataSettings",
    "Decision",
    "Diffusion",
    "Distill",
    "ExampleTask",
    "Generalist",
    "ImageText",
    "ImageTokens",
    "LinearFunctions",
    "Loss",
    "MaskedTokens",
    "NextToken",
    "Regress",
    "RegressMolecules",
    "RegressSets",
    "Reward",
    "RunSettings",
    "Score",
    "Spans",
    "Tag",
    "Task",
    "TaskSettings",
    "TextTask",
    "TokenizerSettings",
    "Transcribe",
    "Translate",
    "evaluate_loss",
    "linear_cross_entropy",
    "rewards",
    "task_kind",
    "window_losses",
]

keep_old_names(__name__)
