"""Tokenizers out of GGUF headers: the ids of the tokenizer that the header was made from, whatever the text."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
import tokenizers
from gguf_standins import BYTES, vocabulary
from tokenizer_texts import AWKWARD, SPOKEN, random_strings
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers

from glassformer.errors import DataError, ModelFolderError
from glassformer.hub.gguf.tokenizer import tokenizer_from_gguf
from glassformer.hub.gguf.tokenizer_writing import tokenizer_to_gguf
from glassformer.processors.tokenizers import TOKENIZERS, Tokenizer
from glassformer.processors.tokenizers.gpt2 import gpt2_tokenizer

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
# A long s is an s to the expressions of Qwen and Llama (?i:'s), and none to llama.cpp, which we follow.
TEXTS = [t for t in [SPOKEN, *AWKWARD, *random_strings(300, seed=5)] if "ſ" not in t]
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def split(pattern: str) -> Any:
    """The pre-tokenizer of a model's tokenizer.json on the hub."""
    cut = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    return pre_tokenizers.Sequence([cut, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


GPT2 = pre_tokenizers.ByteLevel(add_prefix_space=False)
TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
HEAD = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
CUTS = {
    "gpt-2": GPT2,
    "qwen2": split(HEAD + r"\p{N}" + TAIL),
    "llama-bpe": split(HEAD + r"\p{N}{1,3}" + TAIL),
    "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), GPT2]),
}


def trained(cut: Any, specials_first: bool = False) -> tokenizers.Tokenizer:
    """A byte-level BPE of the library, learned from a text with numbers and several scripts."""
    library = tokenizers.Tokenizer(models.BPE())
    library.pre_tokenizer, library.decoder = cut, decoders.ByteLevel()
    first = SPECIALS if specials_first else []
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                                  special_tokens=first, show_progress=False)  # fmt: skip
    library.train_from_iterator([SPOKEN] * 3 + ["2024 was 365 days, 1000 of them 12345"] * 5, trainer)
    library.add_special_tokens(SPECIALS)
    library.encode_special_tokens = True
    return library


def header(library: tokenizers.Tokenizer, pre: str, **more: Any) -> dict[str, Any]:
    """What llama.cpp's own converter writes of it."""
    ids = library.get_vocab()
    tokens = sorted(ids, key=ids.__getitem__)
    assert [ids[token] for token in tokens] == list(range(len(tokens)))
    merges = [" ".join(pair) for pair in json.loads(library.to_str())["model"]["merges"]]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [CONTROL if token in SPECIALS else NORMAL for token in tokens],
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.eos_token_id": ids["<|im_end|>"],
        "tokenizer.ggml.bos_token_id": ids["<|im_start|>"],
        "tokenizer.chat_template": TEMPLATE,
        **{f"tokenizer.ggml.{name}": value for name, value in more.items()},
    }


@pytest.mark.parametrize("specials_first", [False, True])
@pytest.mark.parametrize("pre", CUTS)
def test_byte_level(pre: str, specials_first: bool):
    library = trained(CUTS[pre], specials_first)
    library.model.ignore_merges = pre == "llama-bpe"
    ours = tokenizer_from_gguf(header(library, pre))
    assert len({tuple(library.encode(text).ids) for text in TEXTS}) > 290
    for text in TEXTS:
        assert ours.encode(text) == library.encode(text).ids, repr(text)
        assert ours.encode_to_array(text).tolist() == ours.encode(text)
        assert ours.decode(ours.encode(text)) == text
    assert ours.kind == "bpe" and ours.vocab_size == library.get_vocab_size() == 400 + (0 if specials_first else 3)
    assert ours.special_tokens == {token: library.token_to_id(token) for token in SPECIALS}
    assert ours.end_of_text == library.token_to_id("<|im_end|>") and ours.chat_template == TEMPLATE
    assert ours.settings["bos_token"] == "<|im_start|>"


def test_other_names_of_a_way_to_cut():
    library = trained(CUTS["llama-bpe"])
    for whole, pre in [(True, "llama3"), (True, "falcon3"), (False, "dbrx"), (False, "smaug-bpe")]:
        library.model.ignore_merges = whole
        ours = tokenizer_from_gguf(header(library, pre))
        assert all(ours.encode(text) == library.encode(text).ids for text in TEXTS), pre


def test_a_word_that_is_a_token_is_that_token_where_it_is_in_llama_cpp():
    """No merge makes ` there`, which is a token."""
    fields = vocabulary()
    fields["tokenizer.ggml.tokens"].insert(259, "Ġthere")
    fields["tokenizer.ggml.token_type"].insert(259, NORMAL)
    pieces = [258, BYTES.index("r"), BYTES.index("e")]
    for pre, expected in {"llama-bpe": [259], "falcon3": [259], "dbrx": pieces, "qwen2": pieces}.items():
        assert tokenizer_from_gguf({**fields, "tokenizer.ggml.pre": pre}).encode(" there") == expected, pre


@pytest.mark.parametrize("kind", ["bpe", "characters", "bytes"])
def test_ours_there_and_back(kind: str):
    tokenizer = TOKENIZERS[kind]([SPOKEN * 3], **({"vocab_size": 400} if kind == "bpe" else {}))
    again = tokenizer_from_gguf(tokenizer_to_gguf(tokenizer, tokenizer.vocab_size + 7))
    assert again.kind == kind and again.end_of_text is not None
    assert again == tokenizer or kind == "characters"  # which have an end of text now
    for text in [SPOKEN, "Speak, ½ 你 🎉"] if kind == "characters" else TEXTS:
        assert again.encode(text) == tokenizer.encode(text)
    for number in range(tokenizer.vocab_size):
        assert again.token_bytes(number) == tokenizer.token_bytes(number)


def test_characters_of_several_bytes_are_merged_and_special_tokens_never():
    """Merges are what llama.cpp puts a character together with; a special token typed as text must stay apart."""
    fields = tokenizer_to_gguf(TOKENIZERS["characters"](["aé漢"], specials=["<|endoftext|>"]), 4)
    assert fields["tokenizer.ggml.tokens"] == ["a", "Ã©", "æ¼¢", "<|endoftext|>"]
    assert fields["tokenizer.ggml.merges"] == ["Ã ©", "æ ¼", "æ¼ ¢"]
    fields = tokenizer_to_gguf(TOKENIZERS["characters"](["a |<>"]), 7)
    assert fields["tokenizer.ggml.merges"] == ["ÿ ÿ"]  # a merge there must be, and these bytes are in no text


def test_gpt2s_own_there_and_back():
    try:
        tokenizer = gpt2_tokenizer()
    except DataError as error:
        pytest.skip(f"GPT-2's vocabulary cannot be fetched: {error}")
    fields = tokenizer_to_gguf(tokenizer, 50_304)  # padded, as nanoGPT does
    again = tokenizer_from_gguf(fields)
    assert fields["tokenizer.ggml.pre"] == "gpt-2" and len(fields["tokenizer.ggml.tokens"]) == 50_304
    assert again == tokenizer and again.kind == "gpt2" and again.vocab_size == 50_257
    assert all(again.encode(text) == tokenizer.encode(text) for text in TEXTS)


def test_chat_tokens_and_templates_travel():
    library = trained(CUTS["smollm"])
    chatty = Tokenizer(
        library, end_of_text="<|im_end|>", chat_template=TEMPLATE, settings={"pad_token": "<|im_start|>"}
    )
    fields = tokenizer_to_gguf(chatty, chatty.vocab_size)
    again = tokenizer_from_gguf(fields)
    assert again.encode(SPOKEN) == chatty.encode(SPOKEN)
    assert (again.chat_template, again.end_of_text) == (TEMPLATE, chatty.end_of_text)
    assert again.settings["pad_token"] == "<|im_start|>"
    assert fields["tokenizer.ggml.token_type"].count(CONTROL) == 3


def test_user_defined_tokens_are_found_in_text_and_special_ones_never():
    fields = vocabulary()
    fields["tokenizer.ggml.tokens"] += ["<tool>", "    "]
    fields["tokenizer.ggml.token_type"] += [USER_DEFINED, USER_DEFINED]
    ours = tokenizer_from_gguf(fields)
    assert ours.special_tokens == {"<|endoftext|>": 259}
    assert ours.encode("a<tool>    b") == [BYTES.index("a"), 260, 261, BYTES.index("b")]
    assert 259 not in ours.encode("a<|endoftext|>") and ours.decode(ours.encode("a<|endoftext|>")) == "a<|endoftext|>"
    again = tokenizer_from_gguf(tokenizer_to_gguf(ours, ours.vocab_size))
    assert again == ours and again.encode("a<tool>    b") == ours.encode("a<tool>    b")


def test_cuts_without_a_name_are_refused():
    """What llama.cpp would cut otherwise is not written."""
    for cut in (split(r"\p{L}+|\s+"), pre_tokenizers.ByteLevel(add_prefix_space=True)):
        with pytest.raises(ModelFolderError, match="cuts text"):
            tokenizer_to_gguf(Tokenizer(trained(cut)), 403)
    library = trained(CUTS["qwen2"])
    library.normalizer = normalizers.Lowercase()
    with pytest.raises(ModelFolderError, match="Lowercase"):
        tokenizer_to_gguf(Tokenizer(library), 403)


@pytest.mark.parametrize("pre", CUTS)
def test_the_hubs_own_spelling_of_a_cut_has_its_name(pre: str):
    library = trained(CUTS[pre])
    library.normalizer = normalizers.NFC() if pre == "qwen2" else None  # as in Qwen's tokenizer.json
    fields = tokenizer_to_gguf(Tokenizer(library), 403)
    assert fields["tokenizer.ggml.pre"] == pre and fields["tokenizer.ggml.eos_token_id"] == 400  # <|endoftext|>
    again = tokenizer_from_gguf(fields)
    assert again.encode(SPOKEN) == library.encode(SPOKEN, add_special_tokens=False).ids


# SentencePiece

spm = pytest.importorskip("sentencepiece")


def pieces(**options: Any) -> tuple[Any, dict[str, Any]]:
    """A real SentencePiece model, lossless with bytes as Llama 2's is, and the header that its converter writes."""
    model = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter((SPOKEN * 3).split("\n")), model_writer=model, minloglevel=2, num_threads=1,
        model_type="bpe", vocab_size=420, byte_fallback=True, normalization_rule_name="identity",
        remove_extra_whitespaces=False, **options,
    )  # fmt: skip
    real = spm.SentencePieceProcessor()
    real.LoadFromSerializedProto(model.getvalue())
    numbers = range(real.get_piece_size())

    def kind(i: int) -> int:
        if real.is_unknown(i):
            return UNKNOWN
        if real.id_to_piece(i) in options.get("user_defined_symbols", ()):
            return USER_DEFINED
        return CONTROL if real.is_control(i) else BYTE if real.is_byte(i) else NORMAL

    return real, {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": [real.id_to_piece(i) for i in numbers],
        "tokenizer.ggml.scores": [real.get_score(i) for i in numbers],
        "tokenizer.ggml.token_type": [kind(i) for i in numbers],
        "tokenizer.ggml.bos_token_id": real.bos_id(),
        "tokenizer.ggml.eos_token_id": real.eos_id(),
        "tokenizer.ggml.unknown_token_id": real.unk_id(),
        "tokenizer.ggml.add_space_prefix": options.get("add_dummy_prefix", True),
    }


@pytest.mark.parametrize("prefix", [True, False])
@pytest.mark.parametrize("across_words", [True, False])
def test_sentencepiece(prefix: bool, across_words: bool, tmp_path):
    real, fields = pieces(add_dummy_prefix=prefix, split_by_whitespace=not across_words)
    ours = tokenizer_from_gguf(fields)
    assert ours.kind == "sentencepiece" and ours.vocab_size == 420
    assert ours.end_of_text == real.eos_id() == 2
    for text in [SPOKEN, *AWKWARD, *random_strings(200, seed=6, longest=15)]:
        expected = real.encode(text)
        assert ours.encode(text) == expected, repr(text)
        if "\ufffd" not in text and text:
            assert ours.decode(expected) == real.decode(expected), repr(text)


def test_pieces_that_are_special_are_never_in_a_text_and_those_of_a_user_always():
    real, fields = pieces(user_defined_symbols=["<tool>", "=>"], add_dummy_prefix=False)
    ours = tokenizer_from_gguf(fields)
    tool, arrow = (real.piece_to_id(piece) for piece in ("<tool>", "=>"))
    for text in ("f(x)=><tool>speak", "=>", "<tool> <tool>"):
        assert ours.encode(text) == real.encode(text) and {tool, arrow} & {*ours.encode(text)}, text
    for text in ("<s>", "a</s>b", "<unk>"):
        assert not {1, 2} & {*ours.encode(text)} and ours.decode(ours.encode(text)) == text, text
    assert ours.special_tokens == {"<unk>": 0, "<s>": 1, "</s>": 2}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scores": [0.0]}, "a score for every token"),
        ({"scores": [float("nan")] * 420}, "a score for every token"),
        ({"scores": ["1"] * 420}, "a score for every token"),
        ({"token_type": [UNUSED] * 420}, "no tokens"),
        ({"token_type": "all"}, "not one kind for every token"),
        ({"model": ["llama"]}, "did you mean llama?"),
        ({"tokens": None}, "no list of tokens"),
    ],
)
def test_what_is_wrong_is_one_line(changes: dict[str, Any], message: str):
    _, fields = pieces()
    with pytest.raises(ModelFolderError) as error:
        tokenizer_from_gguf({**fields, **{f"tokenizer.ggml.{name}": value for name, value in changes.items()}})
    assert message in str(error.value)


def test_a_special_token_that_is_a_character_already():
    fields = {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.tokens": ["a", "Ġ", " "], "tokenizer.ggml.merges": []}
    with pytest.raises(ModelFolderError, match="its tokenizer has another id for ' '"):
        tokenizer_from_gguf({**fields, "tokenizer.ggml.token_type": [NORMAL, NORMAL, CONTROL]})
