"""Level 6: look inside. Functions that return plain data with the numbers that torch has, which can draw itself."""

from glassformer.figures import Column, Curves, HeatMap, Note, Points, Table, Tokens
from glassformer.inspection.ablation import AblationView, ablation
from glassformer.inspection.activations import ActivationsView, activations
from glassformer.inspection.attention import AttentionView, attention
from glassformer.inspection.attention_grid import AttentionGridView, attention_grid
from glassformer.inspection.attention_walkthrough import AttentionWalkthrough, attention_walkthrough
from glassformer.inspection.attribution import Ablated, AttributionView, attribution
from glassformer.inspection.compare import CompareView, compare
from glassformer.inspection.context import ContextView, context
from glassformer.inspection.diffusion import DiffusionView, diffusion
from glassformer.inspection.direct_logit_attribution import Part
from glassformer.inspection.geometry import PCA, Analogy, Direction, Neighbours, analogy, direction, neighbours, pca
from glassformer.inspection.head_links import LinksView, links
from glassformer.inspection.induction import InductionView, induction_scores
from glassformer.inspection.lens import LensView, lens
from glassformer.inspection.look import look
from glassformer.inspection.neurons import Activation, Neuron, NeuronsView, neurons
from glassformer.inspection.next_token import NextView, explain, next_token
from glassformer.inspection.parameters import ParametersView, PartCount, parameters
from glassformer.inspection.patching import PatchingView, patching
from glassformer.inspection.promoters import PromotersView, promoters
from glassformer.inspection.reading import Reading, read
from glassformer.inspection.residual import ResidualView, residual
from glassformer.inspection.steering import SteeringView, steering
from glassformer.inspection.surprise import SurpriseView, surprise
from glassformer.inspection.tensors import TensorRow, TensorsView, tensors
from glassformer.inspection.tokenizers import Tokenization, TokenizersView, tokenizers
from glassformer.inspection.tokens import TokensView, tokens
from glassformer.inspection.trace import Trace, ablate, add, edit, patch, scale, tap_names, trace
from glassformer.inspection.vectors import Vectors, vectors_of
from glassformer.inspection.views import View
from glassformer.inspection.vocabulary import VocabularyView, vocabulary
from glassformer.renamed import keep_old_names

__all__ = [
    "PCA",
    "Ablated",
    "AblationView",
    "Activation",
    "ActivationsView",
    "Analogy",
    "AttentionGridView",
    "AttentionView",
    "AttentionWalkthrough",
    "AttributionView",
    "Column",
    "CompareView",
    "ContextView",
    "Curves",
    "DiffusionView",
    "Direction",
    "HeatMap",
    "InductionView",
    "LensView",
    "LinksView",
    "Neighbours",
    "Neuron",
    "NeuronsView",
    "NextView",
    "Note",
    "ParametersView",
    "Part",
    "PartCount",
    "PatchingView",
    "Points",
    "PromotersView",
    "Reading",
    "ResidualView",
    "SteeringView",
    "SurpriseView",
    "Table",
    "TensorRow",
    "TensorsView",
    "Tokenization",
    "TokenizersView",
    "Tokens",
    "TokensView",
    "Trace",
    "Vectors",
    "View",
    "VocabularyView",
    "ablate",
    "ablation",
    "activations",
    "add",
    "analogy",
    "attention",
    "attention_grid",
    "attention_walkthrough",
    "attribution",
    "compare",
    "context",
    "diffusion",
    "direction",
    "edit",
    "explain",
    "induction_scores",
    "lens",
    "links",
    "look",
    "neighbours",
    "neurons",
    "next_token",
    "parameters",
    "patch",
    "patching",
    "pca",
    "promoters",
    "read",
    "residual",
    "scale",
    "steering",
    "surprise",
    "tap_names",
    "tensors",
    "tokenizers",
    "tokens",
    "trace",
    "vectors_of",
    "vocabulary",
]

keep_old_names(__name__)
