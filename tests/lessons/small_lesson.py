"""Lesson 8 at a size for tests."""

# All different, so that a swapped axis cannot pass; the play has 44 characters, and lesson 9 wants at least as many
SMALL = {"BATCH_SIZE": 5, "BLOCK_SIZE": 11, "N_EMBD": 48, "N_HEAD": 3, "N_LAYER": 2, "STEPS": 20, "DEVICE": "cpu"}
