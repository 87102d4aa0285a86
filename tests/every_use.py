"""A small model folder of every use: random weights that all count, with the processors that a run of its task saves.

USES["images as tokens"].save(folder)
USES["images as tokens"].predict(gf.load(folder), file)
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from toys import shaken, toy_ids

import glassformer as gf
from glassformer.generation import TranscriptionSettings, answer, classify, predict, tag, transcribe
from glassformer.generation.caption import caption
from glassformer.generation.diffusion import diffuse
from glassformer.generation.generalist import painter, part_for, write_captions
from glassformer.generation.image_text import similarities
from glassformer.generation.image_tokens import draw_images
from glassformer.generation.say import say
from glassformer.models import build_model, make_config
from glassformer.processors.audio import AudioProcessor
from glassformer.processors.generalist import GeneralistProcessor, specials_of
from glassformer.processors.image import ImageProcessor
from glassformer.processors.image_text import ImageTextProcessor
from glassformer.processors.image_tokens import ImageTokenProcessor
from glassformer.processors.molecules import MoleculeProcessor
from glassformer.processors.sets import SetProcessor
from glassformer.processors.speech import SpeechProcessor
from glassformer.processors.tokenizers import TOKENIZERS, build_tokenizer
from glassformer.processors.tokenizers.special_tokens import END, MASKED_SPECIALS, SENTENCE_SPECIALS
from glassformer.processors.trajectory import TrajectoryProcessor
from glassformer.processors.vectors import VectorProcessor

SHAPE: dict[str, Any] = {"n_layer": 2, "n_head": 3, "n_embd": 18, "n_hidden": 23}
LETTERS = "".join(map(chr, range(32, 127)))
TEXT = "ABE FED A"


class Use(NamedTuple):
    """tasks: the kinds of task whose models these are. save: writes the folder. predict: what a loaded one answers, to
    be compared; it may write files beside the given path. text: what `look` is given, or what writes such a file."""

    tasks: tuple[str, ...]
    save: Callable[[Path], None]
    predict: Callable[[Any, Path], Any]
    text: str | Callable[[Path], str] = TEXT


def _saved(make: Callable[[], Any]) -> Callable[[Path], None]:
    def save(folder: Path) -> None:
        gf.save(folder, make())

    return save


def _model(kind: str, **fields: Any) -> Any:
    return shaken(build_model(make_config(kind, **{**SHAPE, **fields}))).eval()


def _characters(*specials: str) -> Any:
    return (
        build_tokenizer("characters", [LETTERS], specials=specials) if specials else TOKENIZERS["characters"]([LETTERS])
    )


# ---- files that `look` is given ----


def picture(file: Path, size: int = 8, channels: int = 1) -> str:
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 255, (size, size, channels), dtype=np.uint8)
    file = file.with_suffix(".png")
    Image.fromarray(pixels[..., 0] if channels == 1 else pixels).save(file)
    return str(file)


def colours(file: Path) -> str:
    return picture(file, channels=3)


def sound(file: Path) -> str:
    import soundfile

    samples = 0.1 * np.random.default_rng(0).normal(size=9_600)
    file = file.with_suffix(".wav")
    soundfile.write(file, samples, 16_000)
    return str(file)


def episode(file: Path) -> str:
    from glassformer.data.trajectories import Trajectories, Trajectory

    random = np.random.default_rng(0)
    steps = Trajectory(random.normal(size=(5, 4)).astype(np.float32), np.arange(5) % 2, np.ones(5, dtype=np.float32))
    Trajectories([steps], "CartPole-v1").save(file.with_suffix(".npz"))
    return str(file.with_suffix(".npz"))


# ---- models ----


def _text() -> gf.Bundle:
    tokenizer = _characters()
    return gf.Bundle(_model("decoder", vocab_size=tokenizer.vocab_size, block_size=16), tokenizer)


def _encoder(**heads: Any) -> gf.Bundle:
    tokenizer = _characters(*MASKED_SPECIALS)
    model = _model("encoder", vocab_size=tokenizer.vocab_size, block_size=16, **heads)
    labels = tuple(f"class {i}" for i in range(heads.get("n_classes", 0) if heads.get("n_classes", 0) > 1 else 0))
    return gf.Bundle(model, tokenizer, labels=labels)


def _reward() -> gf.Bundle:
    tokenizer = _characters(END)
    sizes = {"vocab_size": tokenizer.vocab_size, "block_size": 16}
    return gf.Bundle(_model("decoder_classifier", **sizes, n_classes=1), tokenizer)


def _translator() -> gf.Bundle:
    reader, writer = (
        _characters(*SENTENCE_SPECIALS),
        build_tokenizer("characters", ["abc xyz"], specials=SENTENCE_SPECIALS),
    )
    sizes = {"vocab_size": writer.vocab_size, "source_vocab_size": reader.vocab_size, "block_size": 16}
    return gf.Bundle(_model("encoder_decoder", **sizes, **_ends(writer)), writer, reader)


def _ends(tokenizer: Any) -> dict[str, int]:
    pad, start, end = (tokenizer.special_tokens[token] for token in SENTENCE_SPECIALS)
    return {"start_token": start, "end_token": end, "pad_token": pad}


def _patches() -> gf.Bundle:
    shape = {"vocab_size": 1, "block_size": 5, "stem": "patches", "image_size": 8, "patch_size": 4, "n_channels": 1}
    labels = ("dark", "grey", "light")
    return gf.Bundle(_model("encoder", **shape, n_classes=3), ImageProcessor((8, 8), (0.4,), (0.3,)), labels=labels)


def _dual() -> gf.Bundle:
    tokenizer = _characters(END)
    shape = {"vocab_size": tokenizer.vocab_size, "block_size": 16, "image_size": 8, "patch_size": 4, "n_joint": 7}
    model = _model("dual_encoder", **shape, n_text_layer=1, end_token=tokenizer.special_tokens[END])
    return gf.Bundle(model, ImageTextProcessor(ImageProcessor((8, 8)), tokenizer))


def _image_tokens(**kind: Any) -> gf.Bundle:
    p = ImageTokenProcessor.make(size=(3, 5), labels=("dark left", "right"), **kind)
    model = _model("decoder", vocab_size=p.tokenizer.vocab_size, block_size=p.n_pixels + p.n_words)
    return gf.Bundle(model, p.tokenizer, token_processor=p)


def _trajectories() -> TrajectoryProcessor:
    return TrajectoryProcessor((0.1,) * 4, (1.2,) * 4, 10.0, n_actions=2, environment="CartPole-v1", best_return=12.0)


def _generalist() -> gf.Bundle:
    images = ImageTokenProcessor.make(size=(3, 3), levels=4, labels=("3", "7"))
    trajectories = _trajectories()
    tokenizer = build_tokenizer("characters", ["seven three\n"], specials=tuple(specials_of(images, trajectories, 6)))
    p = GeneralistProcessor(tokenizer, images, trajectories, 6, (0.0, 1.5), 500)
    model = _model("decoder", vocab_size=tokenizer.vocab_size, block_size=40)
    return gf.Bundle(model, tokenizer, token_processor=p)


def _captions() -> gf.Bundle:
    tokenizer = _characters(*SENTENCE_SPECIALS)
    sizes = {"vocab_size": tokenizer.vocab_size, "block_size": 9, "image_size": 8, "patch_size": 4, "n_channels": 3}
    return gf.Bundle(_model("encoder_decoder", **sizes, **_ends(tokenizer)), tokenizer, ImageProcessor((8, 8)))


def _speech() -> gf.Bundle:
    tokenizer, reader = _characters(*SENTENCE_SPECIALS), AudioProcessor(n_mels=7, seconds=1)
    sizes = {"vocab_size": tokenizer.vocab_size, "block_size": 9, "source_block_size": reader.n_frames // 2}
    model = _model("encoder_decoder", **sizes, n_mels=7, **_ends(tokenizer))
    return gf.Bundle(model, tokenizer, reader)


def _whisper(folder: Path) -> None:
    """As transformers writes it."""
    from toy_whisper import folder_of

    folder_of(folder)


def _say() -> gf.Bundle:
    levels = tuple(round(0.1 * i - 0.5, 1) for i in range(7))
    p = SpeechProcessor(
        alphabet="".join(sorted(set(TEXT.lower() + " .?"))), voices=("en-us", "en-us+f4"), rate=8000, window=256,
        hop=80, n_levels=5, frames_per_step=3, low=levels, high=tuple(round(x + 1, 1) for x in levels),
    )  # fmt: skip
    sizes = {"vocab_size": p.n_ids, "block_size": 31, "text_block_size": 23, "n_encoder_layer": 1, "n_bands": 7}
    return gf.Bundle(_model("speech_decoder", **sizes, n_levels=5, frames_per_step=3, steps_per_character=0.7), p)


def _decision() -> gf.Bundle:
    sizes = {"state_size": 4, "action_size": 2, "max_timestep": 500, "block_size": 21, "positions": "none"}
    return gf.Bundle(_model("trajectory_decoder", **sizes), _trajectories())


RECORD = '{"age": 3, "length": 0.5, "word": "few"}'


def _set(n_classes: int) -> gf.Bundle:
    records = [{"age": i, "length": i * 0.3, "word": ("few", "many")[i % 2]} for i in range(6)]
    p = SetProcessor.fit(records)
    shape = {"stem": "set", "vocab_size": p.n_ids, "n_inputs": p.n_numbers, "block_size": p.n_members}
    labels = tuple(f"class {i}" for i in range(n_classes)) if n_classes > 1 else ()
    return gf.Bundle(_model("encoder", **shape, n_classes=n_classes), p, labels=labels)


def _molecule(n_classes: int) -> gf.Bundle:
    p = MoleculeProcessor()
    shape = {"stem": "graph", "vocab_size": p.n_ids, "block_size": 64, "patterns": ("graph(1)", "full")}
    labels = tuple(f"class {i}" for i in range(n_classes)) if n_classes > 1 else ()
    return gf.Bundle(_model("encoder", **shape, n_classes=n_classes), p, labels=labels)


def _vectors() -> gf.Bundle:
    return gf.Bundle(_model("vector_decoder", n_inputs=3, block_size=13), VectorProcessor(3))


# ---- what they answer ----


def _logits(bundle: Any, file: Path) -> Any:
    return bundle.model(torch.tensor([bundle.tokenizer.encode(TEXT)]))


def _classes(text: str | Callable[[Path], str] = TEXT) -> Callable[[Any, Path], Any]:
    return lambda bundle, file: classify(
        bundle.model, bundle.processor, [text if isinstance(text, str) else text(file)]
    )


def _number(text: str = TEXT) -> Callable[[Any, Path], Any]:
    return lambda bundle, file: predict(bundle.model, bundle.processor, [text])


def _answer(bundle: Any, file: Path) -> Any:
    return answer(bundle.model, bundle.tokenizer, [TEXT], source_tokenizer=bundle.source_processor, max_new_tokens=5)


def _heard(bundle: Any, file: Path) -> Any:
    settings = TranscriptionSettings(beam=1, times=False)
    return transcribe(bundle.model, bundle.tokenizer, bundle.source_processor, [sound(file)], settings)[0].text


def _drawn(*what: str) -> Callable[[Any, Path], Any]:
    return lambda bundle, file: draw_images(*painter(bundle), what)


def _all_of_it(bundle: Any, file: Path) -> Any:
    p = bundle.token_processor
    levels = np.arange(9).reshape(1, 9) % 4
    player = part_for("play", bundle).model
    return (
        _drawn("7")(bundle, file), write_captions(bundle.model, p, levels), list(part_for("classify", bundle).labels),
        player(
            torch.tensor([[1.0, 0.9]]), toy_ids(1, 2, 4) / 61, toy_ids(1, 1, 2) / 61, torch.arange(2)[None],
            cache=player.new_cache(),
        ),
    )  # fmt: skip


USES: dict[str, Use] = {
    "text": Use(("next_token", "induction", "sft", "distill", "dpo", "kto", "ppo", "grpo"), _saved(_text), _logits),
    "hidden tokens": Use(
        ("masked_tokens",), _saved(lambda: _encoder(token_head="vocabulary")),
        lambda bundle, file: bundle.model.token_logits(_logits(bundle, file)),
    ),
    "diffusion": Use(
        ("diffusion",), _saved(lambda: _encoder(token_head="vocabulary")),
        lambda bundle, file: [draft.ids for draft in diffuse(*bundle, "ABE<mask:5>", steps=3)],
    ),
    "classes of texts": Use(("classify",), _saved(lambda: _encoder(n_classes=3)), _classes()),
    "a number for a text": Use(("regress",), _saved(lambda: _encoder(n_classes=1)), _number()),
    "tags": Use(
        ("tag",), _saved(lambda: _encoder(n_classes=3, token_head="classes")),
        lambda bundle, file: tag(*bundle, [TEXT.split()])[0],
    ),
    "reward": Use(("reward",), _saved(_reward), _logits),
    "translation": Use(("translate", "spans"), _saved(_translator), _answer),
    "images": Use(("classify_images",), _saved(_patches), _classes(picture), picture),
    "images and texts": Use(
        ("image_text",), _saved(_dual),
        lambda bundle, file: similarities(bundle.model, bundle.processor, [colours(file)], [TEXT, "A"]), colours,
    ),
    "captions": Use(
        ("captions",), _saved(_captions),
        lambda bundle, file: caption(bundle.model, bundle.tokenizer, bundle.source_processor, [colours(file)]), colours,
    ),
    "images as tokens": Use(("image_tokens",), _saved(lambda: _image_tokens(levels=4)), _drawn("right"), "03 01 02"),
    "text to image": Use(
        ("image_tokens",),
        _saved(lambda: _image_tokens(palette=((0, 0, 0), (255, 0, 0)), words=("a", "red", "seven"), n_words=3)),
        _drawn("a red seven"), "01 00 01",
    ),
    "one model for all": Use(("generalist",), _saved(_generalist), _all_of_it, "seven"),
    "speech to text": Use(("transcribe",), _saved(_speech), _heard, sound),
    "Whisper": Use(("transcribe",), _whisper, _heard, sound),
    "text to speech": Use(
        ("text_to_speech",), _saved(_say),
        lambda bundle, file: say(bundle.model, bundle.processor, TEXT.lower()).samples, TEXT.lower(),
    ),
    "decisions": Use(
        ("decision",), _saved(_decision),
        lambda bundle, file: bundle.model(
            toy_ids(1, 5) / 61, toy_ids(1, 5, 4) / 61, toy_ids(1, 5, 2) / 61, torch.arange(5)[None]
        ), episode,
    ),
    "sets": Use(("classify_sets",), _saved(lambda: _set(3)), _classes(RECORD), RECORD),
    "a number for a set": Use(("regress_sets",), _saved(lambda: _set(1)), _number(RECORD), RECORD),
    "molecules": Use(("classify_molecules",), _saved(lambda: _molecule(3)), _classes("CCO"), "CCO"),
    "a number for a molecule": Use(("regress_molecules",), _saved(lambda: _molecule(1)), _number("CCO"), "CCO"),
    "linear functions": Use(
        ("linear_functions",), _saved(_vectors), lambda bundle, file: bundle.model(toy_ids(1, 7, 3) / 61),
        "[[0.5, -1, 2], [0.3, 0, 0], [1, 1, -0.5]]",
    ),
}  # fmt: skip
