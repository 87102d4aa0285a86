from command_line import glassformer

__all__ = ["glassformer"]
