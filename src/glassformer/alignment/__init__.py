"""An experiment with a known answer: controlled sentiment, after Rafailov et al. 2023, https://arxiv.org/abs/2305.18290,
section 6.1. A hidden gold classifier ranks what a small model writes about films; methods learn from the rankings.

settings   how large everything is: full, short, loose, or of your own
stages     the data of each stage, and its run: started, resumed, or kept
gold       the classifier
measure    gold reward, reward of the reward model, KL and distinct tokens of a model, and of best-of-n
demo       the chain
results    means with intervals over seeds
figures    the plot and the table
*.toml     the recipes of the stages

Apart from the core, like `lessons`: nothing but its command names it.
"""

from glassformer.alignment.demo import align_demo
from glassformer.alignment.figures import figures_of
from glassformer.alignment.settings import FULL, LOOSE, METHODS, SHORT, Settings

__all__ = ["FULL", "LOOSE", "METHODS", "SHORT", "Settings", "align_demo", "figures_of"]
