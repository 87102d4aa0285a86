"""Reading BERT's WordPiece vocabulary: a `vocab.txt` with one token a line, `##` before pieces that continue a word."""

from __future__ import annotations

from pathlib import Path

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from glassformer.errors import TokenizerError
from glassformer.processors.tokenizers.declared import Declared, Draft
from glassformer.processors.tokenizers.files import library_errors, not_read, read_lines

SPECIALS = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
CLASSES = ("", "BertTokenizer", "DistilBertTokenizer", "ElectraTokenizer")


def read_wordpiece(path: Path, declared: Declared) -> Draft:
    """A BERT tokenizer from its `vocab.txt`.

    Text is lower-cased and stripped of accents first by tokenizer_config.json (`do_lower_case`, `strip_accents`,
    `tokenize_chinese_chars`); without these keys, it is if the list has no upper-case letter.
    """
    config = declared.config
    if declared.kind not in CLASSES or config.get("do_basic_tokenize") is False:
        what = f"a {declared.kind}" if declared.kind not in CLASSES else "do_basic_tokenize=false"
        raise not_read(path, what)
    tokens = read_lines(path)
    vocabulary = {token: i for i, token in enumerate(tokens)}
    specials = {**SPECIALS, **{part: token.content for part, token in declared.named.items() if token is not None}}
    unknown = specials["unk_token"]
    if unknown not in vocabulary or len(vocabulary) != len(tokens):
        what = "holds a token twice" if unknown in vocabulary else f"has no {unknown}"
        raise TokenizerError(f"{path}: {what}; a WordPiece vocab.txt with one token a line is needed")
    lowercase = config.get("do_lower_case")
    if not isinstance(lowercase, bool):
        ordinary = (token for token in tokens if token not in specials.values())
        lowercase = not any(character.isupper() for token in ordinary for character in token)
    with library_errors(f"{path}: the tokenizers library cannot use it"):
        library = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token=unknown, max_input_chars_per_word=100))
        library.normalizer = normalizers.BertNormalizer(
            clean_text=True,
            handle_chinese_chars=config.get("tokenize_chinese_chars") is not False,
            strip_accents=config.get("strip_accents"),
            lowercase=lowercase,
        )
        library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        library.decoder = decoders.WordPiece(prefix="##")
        first, last = specials["cls_token"], specials["sep_token"]
        if first in vocabulary and last in vocabulary:  # for those who load what we save; `encode` itself adds nothing
            library.post_processor = processors.BertProcessing((last, vocabulary[last]), (first, vocabulary[first]))
    return Draft(library, SPECIALS, keeps_frame=True)
