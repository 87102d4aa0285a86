"""Level 2: raw data to arrays and back. A processor is saved in the model folder, as Hugging Face does."""

from glassformer.processors.base import PROCESSORS, Processor, load_processor, load_token_processor

__all__ = ["PROCESSORS", "Processor", "load_processor", "load_token_processor"]
