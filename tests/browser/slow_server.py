"""A server of a small model that takes its time, on a port of its own, for a test that kills it: slow_server.py PORT"""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "server"))

from served import small_decoder

from glassformer.generation import Engine
from glassformer.server import ModelHandle, serve

step = Engine.step


def slowly(self):
    time.sleep(0.03)
    return step(self)


Engine.step = slowly
serve({"base": ModelHandle("base", *small_decoder())}, port=int(sys.argv[1]))
