"""Level 2: a compiled path for generation on a CPU, with matrices of 4 to 32 bits."""

from glassformer.native.building import library
from glassformer.native.quantized import QuantizedLinear
from glassformer.native.sampling import sample
from glassformer.native.stack import NativeStack, compile_exactly, quantized_copy
from glassformer.renamed import keep_old_names

__all__ = ["NativeStack", "QuantizedLinear", "compile_exactly", "library", "quantized_copy", "sample"]

keep_old_names(__name__)
