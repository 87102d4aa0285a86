"""Level 6: look inside. Functions that return plain data with the numbers that torch has, which can draw itself."""

from glassformer.inspection.attention import AttentionView, attention
from glassformer.inspection.attribution import Ablated, AttributionView, attribution
from glassformer.inspection.contributions import Part
from glassformer.inspection.figures import Column, Curves, HeatMap, Note, Points, Table, Tokens
from glassformer.inspection.induction import InductionView, induction_scores
from glassformer.inspection.lens import LensView, lens
from glassformer.inspection.next_token import CompareView, NextView, compare, explain, next_token
from glassformer.inspection.reading import Reading, read
from glassformer.inspection.residual import ResidualView, residual
from glassformer.inspection.step import StepView, step
from glassformer.inspection.step_cells import Cell
from glassformer.inspection.surprise import SurpriseView, surprise
from glassformer.inspection.trace import Trace, ablate, add, edit, patch, scale, tap_names, trace
from glassformer.inspection.views import View

__all__ = [
    "Ablated",
    "AttentionView",
    "AttributionView",
    "Cell",
    "Column",
    "CompareView",
    "Curves",
    "HeatMap",
    "InductionView",
    "LensView",
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
    "View",
    "ablate",
    "add",
    "attention",
    "attribution",
    "compare",
    "edit",
    "explain",
    "induction_scores",
    "lens",
    "next_token",
    "patch",
    "read",
    "residual",
    "scale",
    "step",
    "surprise",
    "tap_names",
    "trace",
]
