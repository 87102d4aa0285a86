"""Lesson 8 at a size for tests."""

# All different, so that a swapped axis cannot pass; the play has 44 characters, and lesson 9 wants at least as many
SMALL = {"BATCH_SIZE": 5, "BLOCK_SIZE": 11, "N_EMBD": 48, "N_HEAD": 3, "N_LAYER": 2, "STEPS": 20, "DEVICE": "cpu"}

# For lesson 10: a language of two-word sentences, whose translation turns the words round
COLOURS = {"rouge": "red", "vert": "green", "bleu": "blue", "noir": "black", "blanc": "white"}
THINGS = {"chat": "cat", "chien": "dog", "mur": "wall", "livre": "book", "toit": "roof", "pain": "bread"}
PAIRS = "\n".join(
    f"le {thing} {colour}{end}\tthe {COLOURS[colour]} {THINGS[thing]}{end}"
    for thing in THINGS
    for colour in COLOURS
    for end in ("", ".", " !")
)
