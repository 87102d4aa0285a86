"""Tokenizers out of SentencePiece files: as SentencePiece cuts text, or as the class of transformers does that a folder
was made for."""

from __future__ import annotations

from pathlib import Path

import tokenizers
from tokenizers import decoders, normalizers, pre_tokenizers

from glassformer.processors.tokenizers.declared import Declared, Draft, frame
from glassformer.processors.tokenizers.files import library_errors, not_read, read_bounded
from glassformer.processors.tokenizers.sentencepiece import (
    SPACE,
    Model,
    library_from_pieces,
    pieces_decoder,
    read_model,
)

# The classes of transformers whose tokenizers are read from a SentencePiece model. Of other classes the ids are shifted
# or the vocabulary is put together in a way of their own (XLM-RoBERTa, mBART, Pegasus ...).
CLASSES = ("", "LlamaTokenizer", "CodeLlamaTokenizer", "GemmaTokenizer", "T5Tokenizer")
_LLAMA = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
_T5 = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
_GEMMA = {"unk_token": "<unk>", "bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"}


def read_sentencepiece(path: Path, declared: Declared) -> Draft:
    """A tokenizer from a SentencePiece `.model` file: with the ids that SentencePiece itself gives, or those of the
    declared class, which prepares text in its own way.
    """
    if declared.kind not in CLASSES:
        raise not_read(path, f"a {declared.kind}")
    model = read_model(read_bounded(path), str(path))
    with library_errors(f"{path}: the tokenizers library cannot use it"):
        if declared.kind == "T5Tokenizer" and model.kind == "unigram":
            return _as_t5(model, declared)
        specials = {"unk_token": model.pieces.texts[model.pieces.unknown]}
        if model.end is not None:
            specials["eos_token"] = model.end
        if declared.kind in ("LlamaTokenizer", "CodeLlamaTokenizer") and model.kind == "bpe":
            return Draft(_as_llama(model, declared), _LLAMA)
        return Draft(model.library(), _GEMMA if declared.kind == "GemmaTokenizer" else specials)


def _as_llama(model: Model, declared: Declared) -> tokenizers.Tokenizer:
    """Unchanged text; a space is put before it, before every piece between special tokens in the `legacy` way."""
    library = model.library()
    spaced = declared.config.get("add_prefix_space") is not False
    scheme = "never" if not spaced else "always" if declared.config.get("legacy") is True else "first"
    library.normalizer = None
    library.pre_tokenizer = pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme=scheme, split=False)
    library.decoder = pieces_decoder(spaced)
    return library


def _as_t5(model: Model, declared: Declared) -> Draft:
    """With sentinels behind the pieces, the first of them last; words are cut at all white space."""
    pieces, number = model.pieces, declared.config.get("extra_ids", 100)
    sentinels = [f"<extra_id_{i}>" for i in reversed(range(min(number, 1000) if isinstance(number, int) else 100))]
    sentinels = [text for text in sentinels if text not in pieces.texts]
    first = len(pieces.texts)
    pieces = pieces._replace(
        texts=[*pieces.texts, *sentinels],
        scores=[*pieces.scores, *(0.0 for _ in sentinels)],
        control=pieces.control | {*range(first, first + len(sentinels))},
    )
    folding = [normalizers.Precompiled(model.charsmap)] if model.charsmap else []
    library = library_from_pieces(pieces, model.kind, normalizers.Sequence(folding), model.prefix)
    spaces = pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="always", split=True)
    library.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), spaces])
    library.decoder = decoders.Metaspace(replacement=SPACE, prepend_scheme="always", split=True)
    if library.token_to_id("</s>") is not None:
        library.post_processor = frame(library, None, "</s>")
    return Draft(library, _T5, keeps_frame=True)
