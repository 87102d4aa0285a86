"""Level 6: look inside. Functions that return plain data with the numbers that torch has, which can draw itself."""

from glassformer.inspection.context import ContextView, Neighbours, context
from glassformer.inspection.figures import Column, Curves, HeatMap, Note, Points, Table, Tokens
from glassformer.inspection.neuron_views import Excitation, Neuron, NeuronsView
from glassformer.inspection.neurons import neurons
from glassformer.inspection.parameters import ParametersView, PartCount, parameters
from glassformer.inspection.reading import Reading, read
from glassformer.inspection.tensor_rows import TensorRow
from glassformer.inspection.tensors import TensorsView, TensorView, tensor, tensors
from glassformer.inspection.tokens import TokensView, tokens
from glassformer.inspection.trace import Trace, ablate, add, edit, patch, scale, tap_names, trace
from glassformer.inspection.views import View

__all__ = [
    "Column",
    "ContextView",
    "Curves",
    "Excitation",
    "HeatMap",
    "Neighbours",
    "Neuron",
    "NeuronsView",
    "Note",
    "ParametersView",
    "PartCount",
    "Points",
    "Reading",
    "Table",
    "TensorRow",
    "TensorView",
    "TensorsView",
    "Tokens",
    "TokensView",
    "Trace",
    "View",
    "ablate",
    "add",
    "context",
    "edit",
    "neurons",
    "parameters",
    "patch",
    "read",
    "scale",
    "tap_names",
    "tensor",
    "tensors",
    "tokens",
    "trace",
]
