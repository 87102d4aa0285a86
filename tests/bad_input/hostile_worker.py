"""Opens models that were tampered with, many of them, in a process that may take little memory; tells what went wrong.

    python hostile_worker.py KIND FIRST LAST        the mutations with these numbers; KIND is one of KINDS, or all

A number decides everything about its mutation, so that one that failed can be looked at by itself.
"""

from __future__ import annotations

import copy
import json
import math
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "hub"))
HEADROOM = 1 << 30  # bytes of address space beyond what a process with torch takes
SECONDS = 2.0  # of the processor, for one file
LINE = 1000  # characters, of an error; a path is a tenth of it
HUGE = [2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1, 0, 1, 2**20, 2**40]
LARGE = [100, 999, 1000, 1024, 9_999, 10_000, 65_536, 999_999, 1_000_000, 10_000_000, 1_000_000_000]
SIZES = ["n_layer", "n_expert", "n_gram", "n_gram_rows", "relative_max_distance", "relative_buckets", "n_kv_head",
         "head_width", "n_segments", "block_size", "n_classes", "n_decoder_layer"]  # fmt: skip
WRONG: list[Any] = [
    None, True, False, -1, 0, 1, 3, 7, 1.5, -1e-9, 10**9, 2**31, 2**63, 2**64, 10**30, -(10**30), 1e308, -1e308,
    math.nan, math.inf, -math.inf, "", "x", "\x00", "\ud800", "é" * 1000, "x" * 1_000_000, [], {}, [[]], [None],
    [1, "x"], {"x": 1}, {"type": "BPE"}, ["window(3)"], "window(999999999999)", "linear", [0] * 1000, list("abc"),
]  # fmt: skip


def hostile_bytes(data: bytes, draw: random.Random) -> bytes:
    """Bits flipped, the end cut off, something pushed in, numbers made huge; mostly near the beginning."""
    data = bytearray(data)
    for _ in range(draw.choice([1, 1, 1, 2, 8])):
        if len(data) < 16:
            break
        at = draw.randrange(min(len(data), draw.choice([40, 400, 4000, len(data)])))
        match draw.randrange(6):
            case 0:
                data[at] ^= 1 << draw.randrange(8)
            case 1:
                data[at] = draw.randrange(256)
            case 2:
                size = draw.choice([4, 8])
                data[at : at + size] = (draw.choice(HUGE) % (1 << 8 * size)).to_bytes(size, "little")
            case 3:
                del data[at : at + draw.choice([1, 4, 100, len(data)])]
            case 4:
                data[at:at] = draw.randbytes(draw.choice([1, 4, 100]))
            case 5:
                data[at : at + 30] = data[-30:]
    return bytes(data)


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value inside a JSON value; of long lists and tables, to a few."""
    yield at
    if isinstance(value, dict):
        inside = list(value.items())
    elif isinstance(value, list):
        inside = list(enumerate(value))
    else:
        return
    for key, part in inside if len(inside) < 60 else [*inside[:5], *inside[-5:]]:
        yield from places(part, (*at, key))


def split(expression: str) -> dict[str, Any]:
    rule = {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": False}
    return {"pre_tokenizer": rule}


RULES: list[dict[str, Any]] = [
    split("(a|aa)+$"),  # ways to match "aaa...c" without end
    split("(a+)+b"),
    split("((a{1,1000}){1,1000}){1,1000}"),
    split("("),
    {"normalizer": {"type": "Prepend", "prepend": "x" * 10_000_000}},
    {"normalizer": {"type": "Replace", "pattern": {"String": ""}, "content": "x" * 1000}},
    {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "/////w=="}},  # four billion bytes follow, it says
    {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "BAAAAP////8="}},
    {"padding": {"strategy": {"Fixed": 2**40}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0,
                 "pad_type_id": 0, "pad_token": "!"}},
    {"decoder": {"type": "Strip", "content": " ", "start": 2**40, "stop": 2**40}},
    {"model": {"type": "WordPiece", "unk_token": "?", "continuing_subword_prefix": "", "vocab": {"a": 0},
               "max_input_chars_per_word": 2**60}},
    {"model": {"type": "Unigram", "vocab": [["a", -1.0]], "unk_id": None, "byte_fallback": False}},
    {"model": {"type": "WordLevel", "vocab": {"a": 2**31}, "unk_token": "a"}},
]  # fmt: skip


def hostile_tokenizer(data: bytes, draw: random.Random) -> bytes:
    """As any JSON; or a rule that costs too much, or is beyond what the `tokenizers` library survives."""
    if draw.random() < 0.8:
        return hostile_json(data, draw)
    return json.dumps({**json.loads(data), **draw.choice(RULES)}).encode()


def hostile_json(data: bytes, draw: random.Random) -> bytes:
    """A value of the wrong kind, a key that is missing, numbers beyond bounds, a thousand levels; or damaged text."""
    if draw.random() < 0.15:
        return hostile_bytes(data, draw)
    value = json.loads(data)
    for _ in range(draw.choice([1, 1, 1, 2, 5])):
        *way, last = draw.choice([place for place in places(value) if place] or [("x",)])
        owner = value
        for key in way:
            owner = owner[key]
        match draw.randrange(8):
            case 0:
                del owner[last]
            case 1:
                near = draw.choice([0.5, 2, 1000, -1])  # a number that is nearly right
                old = owner[last]
                owner[last] = type(old)(old * near) if type(old) in (int, float) else old
            case 2 if isinstance(owner, dict):
                owner[str(last) + draw.choice(["_", "s", "\n", ""])] = copy.deepcopy(draw.choice(WRONG))
            case _:
                owner[last] = copy.deepcopy(draw.choice(WRONG))
    text = json.dumps(value)
    if draw.random() < 0.05:
        text = text.replace(":", ":" + "[" * 5000, 1)
    if draw.random() < 0.05:
        text = "[" * 200 + text + "]" * 200
    return text.encode()


def hostile_lines(data: bytes, draw: random.Random) -> bytes:
    """A list of tokens with lines that are missing, stand there twice, or are something else; or damaged text."""
    if draw.random() < 0.3:
        return hostile_bytes(data, draw)
    lines = data.split(b"\n")
    for _ in range(draw.choice([1, 1, 2, 8])):
        at = draw.randrange(len(lines))
        other = draw.choice([b"", b"\xff", b"x" * 10_000, b"<|29.99|>", draw.choice(lines)])
        lines[at : at + draw.randrange(2)] = draw.choice([[other], [other] * 1000, []])
    return b"\n".join(lines)


def huge_sizes(data: bytes, draw: random.Random) -> bytes:
    """Whole numbers as large as a configuration may have them, and larger: more than the weights beside them hold."""
    value = json.loads(data)
    if isinstance(value.get("config"), dict):  # our own form: fields that stand at their defaults too
        value["config"] |= {draw.choice(SIZES): draw.choice(LARGE)}
    elif draw.random() < 0.3:
        value["glassformer"] = {**(value.get("glassformer") or {}), "config": {draw.choice(SIZES): draw.choice(LARGE)}}
    sizes = []
    for place in places(value):
        part = value
        for key in place:
            part = part[key]
        if type(part) is int:
            sizes.append(place)
    for *way, last in draw.sample(sizes, min(len(sizes), draw.choice([1, 1, 2, 3, 6]))):
        owner = value
        for key in way:
            owner = owner[key]
        owner[last] = draw.choice(LARGE)
    return json.dumps(value).encode()


def hostile_fields(fields: dict[str, Any], draw: random.Random) -> dict[str, Any]:
    """The header of a GGUF file with values that no model has. Kinds that the writer lacks are left out."""
    fields = dict(fields)
    for _ in range(draw.choice([1, 1, 2, 4])):
        name = draw.choice(list(fields))
        old = fields[name]
        if isinstance(old, list) and old and draw.random() < 0.6:
            old = list(old)
            at = draw.randrange(len(old))
            options = [old[0], "", "x", "é", "<0xZZ>"] if isinstance(old[0], str) else [0, 1, 2, 3, 4, 5, 6, 7, 99]
            if isinstance(old[0], float):
                options = [0.0, 1e30, -1e30, math.nan, math.inf]
            old[at] = draw.choice(options)
            fields[name] = draw.choice([old, old[:at], old * 2, old[::-1]])
        else:
            known = [value for value in WRONG if isinstance(value, (bool, int, str)) and value != "\ud800"]
            value = draw.choice([*known, 1e30, -1.5, math.nan, math.inf])
            if isinstance(value, int) and not isinstance(value, bool):
                value = value % 2**32
            if draw.random() < 0.1:
                del fields[name]
            else:
                fields[name] = value
    return {name: value for name, value in fields.items() if value != []}


class Originals:
    """Small whole models, made once."""

    def __init__(self, folder: Path):
        from ctranslate2_standins import whisper, write_folder
        from toys import GEMMA3, toy_model

        from glassformer.hub import save, save_gguf
        from glassformer.hub.gguf.file import read_gguf
        from glassformer.models import EncoderConfig, EncoderDecoderConfig, ModelConfig, build_model, make_config
        from glassformer.processors.tokenizers import TOKENIZERS

        play = ["to be, or not to be: that is the question 1234 é"] * 3
        characters, bpe = TOKENIZERS["characters"](play), TOKENIZERS["bpe"](play, vocab_size=271)
        chars = TOKENIZERS["characters"](play, specials=("<pad>", "<s>", "</s>"))
        pieces = TOKENIZERS["sentencepiece"](play, vocab_size=420)
        n = characters.vocab_size
        m = n + 3  # with three special tokens
        shape = {"block_size": 13, "n_layer": 2, "n_head": 3, "n_embd": 18, "n_hidden": 23}
        post = {"family": "original", "positions": "learned", "embedding_norm": True, "embedding_scale": 1.0}
        read = {**post, "token_head": "vocabulary", "token_transform": True, "head_bias": True}
        apart = {"positions": "relative", "attention_scale": 1.0, "qk_norm": False, "activation": "gelu_new"}
        ends = {"start_token": 1, "end_token": 2}
        frames = {**shape, "vocab_size": 1, "stem": "frames", "positions": "sinusoidal", "sinusoid_layout": "whisper"}
        modern = {"vocab_size": 271, "rotary_scaling": {"rope_type": "linear", "factor": 2.0}}
        translator = EncoderDecoderConfig.make
        hears = EncoderDecoderConfig(encoder=EncoderConfig.make(**frames), shared_embedding=False, **ends,
                                     decoder=ModelConfig.make(**shape, vocab_size=m))  # fmt: skip
        configs = {
            "bert": EncoderConfig.make(**shape, **read, vocab_size=m),
            "t5": translator(**shape, **apart, **ends, vocab_size=m, family="modern", tied_head=False),
            "marian": translator(**shape, **ends, vocab_size=m, family="original", head_bias=True),
            "bart": translator(**shape, **post, **ends, vocab_size=m, head_bias=True),
            "whisper": hears,
        }
        models = {
            "gpt2": (toy_model(vocab_size=n), characters),
            "llama": (toy_model("modern", **modern, qk_norm=False), bpe),
            "gemma3_text": (toy_model("modern", vocab_size=420, **GEMMA3), pieces),
            "ours": (toy_model(vocab_size=n, positions="alibi", patterns=("window(3)",), n_gram=2), characters),
            "lstm": (build_model(make_config("lstm", vocab_size=n, block_size=13, n_embd=7, n_hidden=11)), characters),
            **{name: (build_model(config), chars) for name, config in configs.items()},
        }
        self.folders = {}
        for name, (model, tokenizer) in models.items():
            save(folder / name, model.eval(), tokenizer)
            self.folders[name] = folder / name
        self.ctranslate2 = write_folder(folder / "ctranslate2", whisper())
        self.files = {}
        for name in ("gpt2", "llama"):
            save_gguf(folder / f"{name}.gguf", *models[name])
            self.files[name] = folder / f"{name}.gguf"
        self.headers = {name: dict(read_gguf(path).fields) for name, path in self.files.items()}
        self.headers["pieces"] = {
            **self.headers["llama"],
            "tokenizer.ggml.model": "llama",
            "tokenizer.ggml.tokens": ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), *"tobern", "to"],
            "tokenizer.ggml.scores": [float(-i) for i in range(266)],
            "tokenizer.ggml.token_type": [2, 3, 3, *[6] * 256, *[1] * 7],
        }
        self.files["pieces"] = self.files["llama"]


def use(model: Any, tokenizer: Any) -> None:
    """What anybody does first with a model that opened."""
    import torch

    for text in ("", "To be, é 1234 <s></s>\n", "a" * 40 + "c"):
        tokenizer.decode(tokenizer.encode(text))
    for number in range(min(tokenizer.vocab_size, 300)):
        if number in tokenizer._raw:
            tokenizer.token_text(number)
    if getattr(model.config, "vocab_size", 1) > 3 and not hasattr(model, "encode"):
        with torch.inference_mode():
            model(torch.tensor([[1, 2, 3][: model.config.block_size]]))


def open_gguf(folder: Path, originals: Originals, draw: random.Random) -> Callable[[], None]:
    import gguf

    from glassformer.hub.gguf.file import read_gguf
    from glassformer.hub.gguf.reading import load_gguf
    from glassformer.hub.gguf.writing import _add
    from glassformer.hub.inspecting import inspect

    name = draw.choice(list(originals.headers))
    path = folder / "model.gguf"
    if name != "pieces" and draw.random() < 0.6:
        path.write_bytes(hostile_bytes(originals.files[name].read_bytes(), draw))
    else:
        writer = gguf.GGUFWriter(path, "llama")
        for field, value in hostile_fields(originals.headers[name], draw).items():
            if not field.startswith("GGUF."):
                _add(writer, field, value)
        for tensor, held in read_gguf(originals.files[name]).tensors.items():
            if draw.random() < 0.995:
                writer.add_tensor(tensor, held.dequantised().numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()

    def open_it() -> None:
        inspect(path)
        use(*load_gguf(path))

    return open_it


def open_folder(*names: str, hostile: Callable[[bytes, random.Random], bytes]) -> Any:
    def prepare(folder: Path, originals: Originals, draw: random.Random) -> Callable[[], None]:
        import glassformer as gf
        from glassformer.hub.inspecting import inspect

        shutil.copytree(originals.folders[draw.choice(list(originals.folders))], folder, dirs_exist_ok=True)
        path = folder / draw.choice(names)
        path.write_bytes(hostile(path.read_bytes(), draw))

        def open_it() -> None:
            use(*gf.load(folder))
            inspect(folder)

        return open_it

    return prepare


def open_ctranslate2(folder: Path, originals: Originals, draw: random.Random) -> Callable[[], None]:
    from glassformer.hub.importing import check_finite, open_foreign
    from glassformer.hub.inspecting import inspect

    shutil.copytree(originals.ctranslate2, folder, dirs_exist_ok=True)
    changes = {
        "model.bin": hostile_bytes,
        "config.json": hostile_json,
        "tokenizer.json": hostile_tokenizer,
        "vocabulary.txt": hostile_lines,
    }
    name = draw.choice(["model.bin", *changes])
    (folder / name).write_bytes(changes[name]((folder / name).read_bytes(), draw))

    def open_it() -> None:
        inspect(folder)
        model, tokenizer = open_foreign(folder)[0]
        use(model, tokenizer)
        check_finite(model, folder)

    return open_it


KINDS: dict[str, Any] = {
    "gguf": open_gguf,
    "ctranslate2": open_ctranslate2,
    "weights": open_folder("model.safetensors", hostile=hostile_bytes),
    "tokenizer": open_folder("tokenizer.json", hostile=hostile_tokenizer),
    "tokenizer_config": open_folder("tokenizer_config.json", hostile=hostile_json),
    "config": open_folder("config.json", hostile=hostile_json),
    "sizes": open_folder("config.json", hostile=huge_sizes),
}


def too_long(*args: Any) -> None:
    raise TimeoutError("no end")


def main(kind: str, first: int, last: int) -> None:
    from glassformer.errors import GlassformerError

    with tempfile.TemporaryDirectory(prefix="hostile-") as place:
        originals = Originals(Path(place) / "originals")
        use(*__import__("glassformer").load(originals.folders["gpt2"]))
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + HEADROOM, resource.RLIM_INFINITY))
        signal.signal(signal.SIGALRM, too_long)
        for number in range(first, last):
            print(json.dumps({"number": number}), flush=True)  # the last one, should this process die
            folder = Path(place) / "tampered"
            folder.mkdir()
            was, wrong = "opened", None
            try:
                name = kind if kind in KINDS else [*KINDS][number % len(KINDS)]
                open_it = KINDS[name](folder, originals, random.Random(f"{name} {number}"))
                signal.alarm(60)
                began = time.process_time()
                try:
                    open_it()
                except GlassformerError as error:
                    was = "refused"
                    if "\n" in str(error) or len(str(error)) > LINE:
                        wrong = f"no line that one reads: {str(error)[-500:]}"
                took = time.process_time() - began
                if took > SECONDS and not wrong:
                    wrong = f"took {took:.1f} s"
            except BaseException:
                wrong = traceback.format_exc()[-1500:]
            finally:
                signal.alarm(0)
            print(json.dumps({"number": number, "kind": name, "was": was, "wrong": wrong}), flush=True)
            shutil.rmtree(folder)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
