"""Texts for the tokenizer tests: one with a bit of everything, a list of awkward ones, and random ones."""

import random

SPOKEN = (
    "First Citizen:\nBefore we proceed any further, hear me speak.\n\nAll:\nSpeak, speak.\n\n"
    "We'll see 1234 of THEM'S 56 things: it's what they've said, I'M sure!  Two  spaces,\tand a tab.\n"
    "    indented = f(x, [0, 1])  # code\n\nDéjà vu — naïve façade, ½ price; Привет, мир! "
    "你好，世界。こんにちは 🎉👩‍🔬\n"
)
AWKWARD = [
    *("", " ", "\n", " leading space", "trailing space ", "line\r\nline\n\n\n  indented\n"),
    *("<|endoftext|>", "a<|endoftext|>b </s> <s> [SEP] <unk> <0x0A>", "it's IT'S we'll WE'LL ſ 'ſ"),
    *("1234567890 ½ ² ٣", "é vs e\u0301, ﬁ, Å", "👩‍🔬🏳️‍🌈", "\u00a0non\u2009breaking\u3000spaces\u200b"),
    *("\x00\x01\x1c\x1f\x7f", "\ufffd", "a" * 77),
]


def random_strings(count: int, seed: int = 0, longest: int = 40) -> list[str]:
    """Strings that stress the cutting of text: white-space runs, digits, contractions, scripts, emoji, anything."""
    rng = random.Random(seed)
    runs = [
        *(" ", "  ", "   ", "\n", "\n\n", "\r\n", "\t", " \n"),
        *("'s", "'LL", "'re", "'", "<|endoftext|>", "don't", "www."),
    ]
    scripts = (
        'abcdefgh ETAOIN 0123456789 .,;:!?-_()[]{}<>|/\\"@#$%^&*+=~` éßñçœÅø абвгдежз αβγδ '
        "你好世界日本語 한국어 אבג عرب ½²٣ \u00a0\u3000\u200d🎉👩🔬"
    )

    def piece() -> str:
        kind = rng.random()
        if kind < 0.3:
            return rng.choice(runs)
        if kind < 0.9:
            return "".join(rng.choices(scripts, k=rng.randint(1, 4)))
        code = rng.randrange(0x110000)
        return "\ufffd" if 0xD800 <= code < 0xE000 else chr(code)

    return ["".join(piece() for _ in range(rng.randint(0, longest))) for _ in range(count)]
