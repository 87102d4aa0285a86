"""Level 6: look inside. Functions that return plain data with the numbers that torch has, which can draw itself."""

from glassformer.inspection.attention import AttentionView, attention
from glassformer.inspection.attribution import Ablated, AttributionView, attribution
from glassformer.inspection.contributions import Part
from glassformer.inspection.figures import Column, Curves, HeatMap, Note, Points, Table, Tokens
from glassformer.inspection.geometry import PCA, Analogy, Direction, Neighbours, analogy, direction, neighbours, pca
from glassformer.inspection.induction import InductionView, induction_scores
from glassformer.inspection.lens import LensView, lens
from glassformer.inspection.next_token import CompareView, NextView, compare, explain, next_token
from glassformer.inspection.reading import Reading, read
from glassformer.inspection.residual import ResidualView, residual
from glassformer.inspection.step import StepView, step
from glassformer.inspection.step_cells import Cell
from glassformer.inspection.surprise import SurpriseView, surprise
from glassformer.inspection.trace import Trace, ablate, add, edit, patch, scale, tap_names, trace
from glassformer.inspection.vectors import Vectors, vectors_of
from glassformer.inspection.views import View

__all__ = [
    "PCA",
    "Ablated",
    "Analogy",
    "AttentionView",
    "AttributionView",
    "Cell",
    "Column",
    "CompareView",
    "Curves",
    "Direction",
    "HeatMap",
    "InductionView",
    "LensView",
    "Neighbours",
    "NextView",
    "Note",
    "Part",
    "Points",
    "Reading",
    "ResidualView",
    "StepView",
    "SurpriseView",
    "Table",
    "Tokens",
    "Trace",
    "Vectors",
    "View",
    "ablate",
    "add",
    "analogy",
    "attention",
    "attribution",
    "compare",
    "direction",
    "edit",
    "explain",
    "induction_scores",
    "lens",
    "neighbours",
    "next_token",
    "patch",
    "pca",
    "read",
    "residual",
    "scale",
    "step",
    "surprise",
    "tap_names",
    "trace",
    "vectors_of",
]
