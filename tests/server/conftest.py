import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from served import models, url

__all__ = ["models", "url"]  # fixtures: pytest finds them here
