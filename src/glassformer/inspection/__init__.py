"""Level 6: look inside. Functions that return plain data with the numbers that torch has, which can draw itself."""

from glassformer.inspection.figures import Column, Curves, HeatMap, Note, Points, Table, Tokens
from glassformer.inspection.views import View

__all__ = ["Column", "Curves", "HeatMap", "Note", "Points", "Table", "Tokens", "View"]
