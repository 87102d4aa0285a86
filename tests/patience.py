"""How long a test waits for another process or thread before it takes it for hung.

It says nothing about speed and costs nothing when all is well: beside a busy neighbour importing PyTorch alone can take
half a minute.
"""

PATIENCE = 300.0  # seconds
