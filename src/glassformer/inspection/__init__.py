"""Level 6: look inside. Functions that return plain data with the numbers that torch has, which can draw itself."""

from glassformer.inspection.attribution import Ablated, AttributionView, attribution
from glassformer.inspection.contributions import Part
from glassformer.inspection.figures import Column, Curves, HeatMap, Note, Points, Table, Tokens
from glassformer.inspection.lens import LensView, lens
from glassformer.inspection.reading import Reading, read
from glassformer.inspection.residual import ResidualView, residual
from glassformer.inspection.trace import Trace, ablate, add, edit, patch, scale, tap_names, trace
from glassformer.inspection.views import View

__all__ = [
    "Ablated",
    "AttributionView",
    "Column",
    "Curves",
    "HeatMap",
    "LensView",
    "Note",
    "Part",
    "Points",
    "Reading",
    "ResidualView",
    "Table",
    "Tokens",
    "Trace",
    "View",
    "ablate",
    "add",
    "attribution",
    "edit",
    "lens",
    "patch",
    "read",
    "residual",
    "scale",
    "tap_names",
    "trace",
]
