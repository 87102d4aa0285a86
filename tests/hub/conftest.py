"""The stand-ins of two other folders are used here too: texts for tokenizers; packages and a web server."""

from __future__ import annotations

import sys
from pathlib import Path

for folder in ("processors/tokenizers", "data"):
    sys.path.insert(0, str(Path(__file__).parent.parent / folder))
