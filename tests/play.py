"""A small play to learn from: a few kilobytes, different enough in each part."""

SCENE = """First Citizen:
Before we proceed any further, hear me speak.

All:
Speak, speak.

First Citizen:
You are all resolved rather to die than to famish?

"""
PLAY = "".join(f"{SCENE}Citizen {i}:\nResolved, resolved, {i} times.\n\n" for i in range(40))
