"""Level 6: look inside. Functions that return plain data with the numbers that torch has, which can draw itself."""

from glassformer.inspection.figures import Column, Curves, HeatMap, Note, Points, Table, Tokens
from glassformer.inspection.next_token import CompareView, NextView, compare, explain, next_token
from glassformer.inspection.reading import Reading, read
from glassformer.inspection.surprise import SurpriseView, surprise
from glassformer.inspection.trace import Trace, ablate, add, edit, patch, scale, tap_names, trace
from glassformer.inspection.views import View

__all__ = [
    "Column",
    "CompareView",
    "Curves",
    "HeatMap",
    "NextView",
    "Note",
    "Points",
    "Reading",
    "SurpriseView",
    "Table",
    "Tokens",
    "Trace",
    "View",
    "ablate",
    "add",
    "compare",
    "edit",
    "explain",
    "next_token",
    "patch",
    "read",
    "scale",
    "surprise",
    "tap_names",
    "trace",
]
