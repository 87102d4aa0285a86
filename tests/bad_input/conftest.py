import sys
from pathlib import Path

from command_line import finished, glassformer, half, refused, small_runs

sys.path.insert(0, str(Path(__file__).parent.parent / "data"))  # the server on this machine

__all__ = ["finished", "glassformer", "half", "refused", "small_runs"]
