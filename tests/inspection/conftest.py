from command_line import finished, glassformer, half, refused, small_runs

__all__ = ["finished", "glassformer", "half", "refused", "small_runs"]
