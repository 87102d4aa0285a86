"""Marian's tokenizers: two SentencePiece models, of what is read and of what is written, and ids that are in neither.

    source.spm, target.spm      cut text into pieces
    vocab.json                  the id of every piece, of both sides where they share a vocabulary
    target_vocab.json           ids of what is written, where they do not

Two differences from transformers remain, where it gives the unknown token: a piece that vocab.json lacks is spelled in
smaller ones here, and a character that only source.spm has is itself in a target text here.
"""

from __future__ import annotations

from pathlib import Path

from tokenizers import AddedToken

from glassformer.errors import TokenizerError
from glassformer.processors.tokenizers.declared import Declared, Draft, frame
from glassformer.processors.tokenizers.files import library_errors, read_bounded, read_json
from glassformer.processors.tokenizers.sentencepiece import Pieces, library_from_pieces, read_model

_NOT_READ = "\U000f0000"  # in front of the pieces of the other side, so that no text that is read becomes one
_SPECIALS = {"unk_token": "<unk>", "eos_token": "</s>", "pad_token": "<pad>"}


def is_marian(folder: Path) -> bool:
    """Whether a folder holds Marian's files."""
    return all((folder / name).is_file() for name in ("source.spm", "target.spm", "vocab.json"))


def read_marian(model: Path, declared: Declared) -> Draft:
    """The tokenizer of one side.

    Args:
        model: its `source.spm` or `target.spm`, beside the other files.
    """
    separate = declared.config.get("separate_vocabs") is True and model.name == "target.spm"
    listed = model.with_name("target_vocab.json" if separate else "vocab.json")
    texts = _texts(read_json(listed), listed)
    given = read_model(read_bounded(model), str(model))
    if given.kind != "unigram":
        raise TokenizerError(f"{model}: a {given.kind} model, where Marian has Unigram; fetch it again")
    named = {part: token.content for part, token in declared.named.items() if token is not None}
    specials = {**_SPECIALS, **named}
    number = {text: i for i, text in enumerate(texts)}
    if specials["unk_token"] not in number:
        raise TokenizerError(f"{listed}: has no {specials['unk_token']}; it is the vocabulary of another tokenizer")
    score = dict(zip(given.pieces.texts, given.pieces.scores, strict=True))
    ordinary = {i for i, text in enumerate(texts) if text in score and text not in specials.values()}
    pieces = Pieces(
        texts=texts,
        scores=[score.get(text, 0.0) for text in texts],
        unknown=number[specials["unk_token"]],
        control={number[text] for text in specials.values() if text in number},
        bytes=set(),
        unused={*range(len(texts))} - ordinary,
    )
    languages = [text for text in texts if text.startswith(">>") and text.endswith("<<")]
    if model.name == "source.spm":
        kept = {*specials.values(), *languages}
        texts = [text if i in ordinary or text in kept else _NOT_READ + text for i, text in enumerate(texts)]
        pieces = pieces._replace(texts=texts)
    with library_errors(f"{listed}: the tokenizers library cannot use it"):
        library = library_from_pieces(pieces, "unigram", given.normalizer(), given.prefix)
        library.add_tokens([AddedToken(text, normalized=False) for text in languages])
        if specials["eos_token"] in number:
            library.post_processor = frame(library, None, specials["eos_token"])
    return Draft(library, _SPECIALS, keeps_frame=True)


def _texts(ids: dict[str, int], source: Path) -> list[str]:
    """The pieces in the order of their ids."""
    texts = {number: text for text, number in ids.items()}
    if not ids or set(texts) != {*range(len(ids))}:
        raise TokenizerError(f"{source}: its ids are not 0 to {len(ids) - 1}, each once; fetch it again")
    return [texts[number] for number in range(len(ids))]
