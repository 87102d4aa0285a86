"""Reading BERT's WordPiece vocabulary: a `vocab.txt` with one token a line, `##` before pieces that continue a word."""

from __future__ import annotations

from pathlib import Path

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from glassformer.errors import TokenizerError
from glassformer.tokenizers.tokenizer import Tokenizer

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def read_wordpiece(path: Path, *, lowercase: bool | None = None) -> Tokenizer:
    """A BERT tokenizer from its `vocab.txt`.

    Args:
        path: the list, or the folder that holds it.
        lowercase: whether text is lower-cased and stripped of accents first; None: `do_lower_case` of a
            tokenizer_config.json beside the list, else whether the list has no upper-case letter.

    Raises:
        TokenizerError: the list is missing, damaged, or lacks [UNK].
    """
    from glassformer.tokenizers.reading import read_json, read_text

    path = path / "vocab.txt" if path.is_dir() else path
    tokens = read_text(path).splitlines()
    vocabulary = {token: i for i, token in enumerate(tokens)}
    if "[UNK]" not in vocabulary or len(vocabulary) != len(tokens):
        what = "holds a token twice" if "[UNK]" in vocabulary else "has no [UNK]"
        raise TokenizerError(f"{path}: {what}; a WordPiece vocab.txt with one token a line is needed")
    if lowercase is None:
        config = path.with_name("tokenizer_config.json")
        stated = read_json(config).get("do_lower_case") if config.is_file() else None
        lowercase = (
            stated
            if isinstance(stated, bool)
            else not any(character.isupper() for token in tokens if token not in _SPECIAL for character in token)
        )
    library = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100))
    library.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    library.decoder = decoders.WordPiece(prefix="##")
    special = [token for token in _SPECIAL if token in vocabulary]
    library.add_special_tokens(special)
    if {"[CLS]", "[SEP]"} <= set(special):  # for those who load what we save; `encode` itself adds nothing
        library.post_processor = processors.BertProcessing(
            ("[SEP]", vocabulary["[SEP]"]), ("[CLS]", vocabulary["[CLS]"])
        )
    names = {"[PAD]": "pad", "[UNK]": "unk", "[CLS]": "cls", "[SEP]": "sep", "[MASK]": "mask"}
    return Tokenizer(library, settings={f"{names[token]}_token": token for token in special})
