"""Tokenizer folders with no tokenizer.json, as they were published until 2021: the ids, the tokens around a text, the
special tokens and the chat template are those that transformers finds in the same files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tokenizer_texts import AWKWARD

import glassformer as gf
from glassformer.errors import TokenizerError
from glassformer.generation.generate import prompt_ids
from glassformer.generation.seq2seq import source_ids
from glassformer.hub import import_model, load_source_tokenizer
from glassformer.models import EncoderDecoderConfig, build_model
from glassformer.processors.tokenizers import TOKENIZERS, load_tokenizer
from glassformer.processors.tokenizers.reading import load_source_tokenizer_of

transformers = pytest.importorskip("transformers")
spm = pytest.importorskip("sentencepiece")

LEARNED = "the cat sat on the mat, and The Dog's 12 ducks didn't. héllo wörld ümlaut\tx\n" * 7
BATTERY = [
    *("the cat sat", "  two  spaces ", "12 ducks didn't", "héllo he\u0301llo", "tab\tand\nline", "…—“x”", ""),
    *("日本 and 🙂", " the", "THE DOG'S", "a\u2028b\x85c\x0cd", "x\r\ny", "<|im_start|>", "word<unk>word"),
]
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}"


def write(folder: Path, **files: Any) -> None:
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        name = name.replace("__", ".")
        (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory) -> Path:
    """vocab.json and merges.txt, with the special tokens of GPT-2 and of RoBERTa among the vocabulary."""
    folder = tmp_path_factory.mktemp("bpe")
    TOKENIZERS["bpe"]([LEARNED], vocab_size=300, specials=())._library.model.save(str(folder))
    vocabulary = json.loads((folder / "vocab.json").read_text())
    for token in ("<|endoftext|>", "<s>", "</s>", "<unk>", "<pad>", "<mask>"):
        vocabulary[token] = len(vocabulary)
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    return folder


@pytest.fixture(scope="module")
def pieces(tmp_path_factory) -> Path:
    """SentencePiece models of both kinds: bpe.model with bytes, unigram.model without; both with pieces of users."""
    folder = tmp_path_factory.mktemp("pieces")
    for kind in ("bpe", "unigram"):
        spm.SentencePieceTrainer.train(
            sentence_iterator=iter(LEARNED.split("\n")),
            model_prefix=str(folder / kind),
            vocab_size=330 if kind == "bpe" else 48,
            model_type=kind,
            byte_fallback=kind == "bpe",
            hard_vocab_limit=False,
            user_defined_symbols=["<sep>"],
            unk_id=0 if kind == "bpe" else 2,
            bos_id=1 if kind == "bpe" else -1,
            eos_id=2 if kind == "bpe" else 1,
            pad_id=-1 if kind == "bpe" else 0,
            minloglevel=2,
        )
    return folder


def same_as_theirs(folder: Path, theirs: Any, *, texts: list[str] = BATTERY) -> None:
    ours = load_tokenizer(folder)
    for text in texts:
        bare = theirs(text, add_special_tokens=False, split_special_tokens=True).input_ids
        assert ours.encode(text) == bare, text
        if text:
            before, after = ours.frame
            assert [*before, *ours.encode(text), *after] == theirs(text, split_special_tokens=True).input_ids, text
    assert ours.end_of_text == theirs.eos_token_id
    assert ours.chat_template == theirs.chat_template
    special = {token.content: number for number, token in theirs.added_tokens_decoder.items() if token.special}
    assert special.items() <= ours.special_tokens.items()


BYTE_LEVEL = {  # tokenizer_config.json, config.json, the class of transformers
    "nothing but the two files": ({}, {}, "GPT2Tokenizer"),
    "with a beginning": ({"tokenizer_class": "GPT2Tokenizer", "add_bos_token": True}, {}, "GPT2Tokenizer"),
    "with a space": ({"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": True}, {}, "GPT2Tokenizer"),
    "CodeGen": ({"tokenizer_class": "CodeGenTokenizerFast"}, {}, "GPT2Tokenizer"),
    "RoBERTa": ({"tokenizer_class": "RobertaTokenizer"}, {}, "RobertaTokenizer"),
    "BART": ({"tokenizer_class": "BartTokenizer"}, {}, "RobertaTokenizer"),
    "Qwen": ({"tokenizer_class": "Qwen2Tokenizer"}, {}, "Qwen2Tokenizer"),
    "named by the model": ({}, {"model_type": "qwen3"}, "Qwen2Tokenizer"),
    "GPT-NeoX": ({"tokenizer_class": "GPTNeoXTokenizer", "pad_token": "<pad>"}, {}, "GPTNeoXTokenizer"),
}


@pytest.mark.parametrize("case", BYTE_LEVEL)
def test_vocabulary_and_merges(case: str, byte_level: Path, tmp_path: Path):
    config, model, name = BYTE_LEVEL[case]
    folder = Path(shutil.copytree(byte_level, tmp_path / "theirs"))
    if config:
        write(folder, tokenizer_config__json=config)
    if model:
        write(folder, config__json=model)
    theirs = getattr(transformers, name).from_pretrained(folder)
    same_as_theirs(folder, theirs)
    if case == "BART":  # what an encoder-decoder reads is framed as it was trained
        assert source_ids(load_tokenizer(folder), "the cat") == theirs("the cat").input_ids


@pytest.mark.parametrize("where", ["added_tokens.json", "added_tokens_decoder", "special_tokens_map.json"])
def test_added_tokens_and_ends_wherever_they_are_declared(where: str, byte_level: Path, tmp_path: Path):
    folder = Path(shutil.copytree(byte_level, tmp_path / "theirs"))
    n = len(json.loads((folder / "vocab.json").read_text()))
    config: dict[str, Any] = {"tokenizer_class": "GPT2Tokenizer", "chat_template": TEMPLATE}
    start = {"__type": "AddedToken", "content": "<|endoftext|>", "lstrip": False}
    named = {"eos_token": "<|im_end|>", "bos_token": start}
    extra = {"additional_special_tokens": ["<|im_start|>"]}
    if where == "special_tokens_map.json":
        write(folder, special_tokens_map__json={"eos_token": "<|im_end|>", "bos_token": {"content": "<s>"}, **extra})
    else:
        config |= named | extra
    if where == "added_tokens_decoder":
        texts = ("<|im_start|>", "<|im_end|>", "<plain>")
        config[where] = {str(n + i): {"content": text, "special": text != "<plain>"} for i, text in enumerate(texts)}
    else:
        write(folder, added_tokens__json={"<|im_start|>": n, "<|im_end|>": n + 1, "<plain>": n + 2})
    write(folder, tokenizer_config__json=config)
    theirs = transformers.GPT2Tokenizer.from_pretrained(folder)
    # without tokenizer_config.json they forget that the first of them is special, and find it in a text
    same_as_theirs(folder, theirs, texts=[text for text in BATTERY if "<|" not in text])
    ours = load_tokenizer(folder)
    assert (ours.vocab_size, ours.end_of_text) == (n + 3, n + 1)
    assert ours.encode("the<plain>cat") == theirs("the<plain>cat").input_ids
    written = [{"role": "user", "content": "the cat"}]
    assert ours.chat.encode(written) == theirs.apply_chat_template(written, return_dict=False)


@pytest.mark.parametrize("config", [{}, {"legacy": True}, {"add_prefix_space": False}, {"add_eos_token": True}])
@pytest.mark.parametrize("start", [True, False])
def test_llama(config: dict[str, Any], start: bool, pieces: Path, tmp_path: Path):
    folder = tmp_path / "theirs"
    write(folder, tokenizer_config__json={"tokenizer_class": "LlamaTokenizer", "add_bos_token": start, **config})
    write(folder, added_tokens__json={"<|im_start|>": 330, "<|im_end|>": 331})
    shutil.copy(pieces / "bpe.model", folder / "tokenizer.model")
    theirs = transformers.LlamaTokenizer.from_pretrained(folder)
    same_as_theirs(folder, theirs, texts=[*BATTERY, *AWKWARD])
    ours = load_tokenizer(folder)
    assert ours.starts_with == (1 if start else None) and ours.end_of_text == 2
    assert prompt_ids(ours, "the") == theirs("the").input_ids[: -1 if config.get("add_eos_token") else None]
    parts = ours.encode_parts(["the", 1, "cat"])  # where the legacy way puts another space
    assert parts == theirs("the<s>cat", add_special_tokens=False).input_ids


def test_a_piece_of_users_is_matched_whole(pieces: Path):
    model = spm.SentencePieceProcessor(model_file=str(pieces / "bpe.model"))
    ours = load_tokenizer(pieces / "bpe.model")
    for text in ("the cat<sep>sat", "the<sep><sep>the", "a<sep>"):
        assert ours.encode(text) == model.encode(text) and model.piece_to_id("<sep>") in ours.encode(text)


def test_t5(pieces: Path, tmp_path: Path):
    folder = tmp_path / "theirs"
    write(folder, tokenizer_config__json={"tokenizer_class": "T5Tokenizer", "extra_ids": 7})
    shutil.copy(pieces / "unigram.model", folder / "spiece.model")
    theirs = transformers.T5Tokenizer.from_pretrained(folder)
    same_as_theirs(folder, theirs)
    ours = load_tokenizer(folder)
    assert ours.special_tokens["<extra_id_0>"] == theirs.convert_tokens_to_ids("<extra_id_0>") == len(theirs) - 1


WORDS = [
    *("[PAD]", "[UNK]", "[CLS]", "[FIRST]", "[SEP]", "[MASK]", "the", "cat", "##s", "hello", "he\u0301llo"),
    *("\u2028", "日", "a"),
]


@pytest.mark.parametrize(
    "config",
    [
        {"do_lower_case": True},
        {"do_lower_case": False},
        {"do_lower_case": True, "strip_accents": False},
        {"do_lower_case": False, "strip_accents": True},
        {"do_lower_case": True, "tokenize_chinese_chars": False},
        {"do_lower_case": True, "cls_token": "[FIRST]", "unk_token": "[PAD]"},
    ],
)
def test_bert(config: dict[str, Any], tmp_path: Path):
    """One line is one token: U+2028 ends a line for Python's splitlines and is a token here."""
    folder = tmp_path / "theirs"
    write(folder, vocab__txt="\n".join(WORDS) + "\n", tokenizer_config__json=config)
    theirs = transformers.BertTokenizer.from_pretrained(folder)
    texts = ["The cats", "héllo hello he\u0301llo", "日日a", "cat\u2028cat", "HELLO [MASK]"]
    same_as_theirs(folder, theirs, texts=texts)
    assert load_tokenizer(folder).special_tokens["[MASK]"] == 5


def marian_folder(folder: Path, pieces: Path, *, separate: bool) -> None:
    folder.mkdir()
    for number, side in enumerate(("source", "target")):
        spm.SentencePieceTrainer.train(
            sentence_iterator=iter(LEARNED.upper().split("\n") if number else LEARNED.split("\n")),
            model_prefix=str(folder / side),
            vocab_size=40 + 7 * number,
            model_type="unigram",
            hard_vocab_limit=False,
            minloglevel=2,
        )
        (folder / f"{side}.model").rename(folder / f"{side}.spm")
    models = [spm.SentencePieceProcessor(model_file=str(folder / f"{side}.spm")) for side in ("source", "target")]
    of = [[model.id_to_piece(i) for i in range(3, model.get_piece_size())] for model in models]
    lists = of if separate else [list(dict.fromkeys([*of[0], *of[1]]))]
    for name, listed in zip(("vocab.json", "target_vocab.json"), lists, strict=False):
        texts = ["</s>", "<unk>", ">>fra<<", *listed, "<pad>"]
        (folder / name).write_text(json.dumps({text: i for i, text in enumerate(texts)}))
    write(folder, tokenizer_config__json={"separate_vocabs": separate, "tokenizer_class": "MarianTokenizer"})


@pytest.mark.parametrize("separate", [True, False])
@pytest.mark.filterwarnings("ignore:Recommended")
def test_marian(separate: bool, pieces: Path, tmp_path: Path):
    marian_folder(tmp_path / "theirs", pieces, separate=separate)
    theirs = transformers.MarianTokenizer.from_pretrained(tmp_path / "theirs")
    reads, writes = load_source_tokenizer_of(tmp_path / "theirs"), load_tokenizer(tmp_path / "theirs")
    for text in ["the cat sat", "12 ducks, didn't", "q ΩΩ z", "  two  spaces ", "THE CAT"]:
        assert [*reads.encode(text), *reads.frame[1]] == theirs(text).input_ids
        if separate or text == "THE CAT":
            assert [*writes.encode(text), *writes.frame[1]] == theirs(text_target=text).input_ids
    assert reads.encode(">>fra<< the cat") == theirs(">>fra<< the cat").input_ids[:-1]
    assert writes.decode(writes.encode("THE CAT")) == theirs.decode(writes.encode("THE CAT")) == "THE CAT"
    assert (reads.end_of_text, reads.special_tokens["<pad>"]) == (0, theirs.pad_token_id)


REFUSED = {
    "a class that shifts ids": ("tokenizer.model", {"tokenizer_class": "XLMRobertaTokenizer"}, "XLMRobertaTokenizer"),
    "a class with ends of words": ("vocab.json", {"tokenizer_class": "CLIPTokenizer"}, "CLIPTokenizer"),
    "a class with other marks": ("vocab.txt", {"tokenizer_class": "MPNetTokenizer"}, "MPNetTokenizer"),
    "no cutting at marks": ("vocab.txt", {"do_basic_tokenize": False}, "do_basic_tokenize"),
    "an id that it cannot have": ("vocab.json", {"added_tokens_decoder": {"999": {"content": "<x>"}}}, "999"),
    "an id that is none": ("vocab.json", {"added_tokens_decoder": {"last": {"content": "<x>"}}}, "last"),
    "a token that is none": ("vocab.json", {"eos_token": 7}, "7"),
    "added tokens in a list": ("vocab.json", {"added_tokens_decoder": [1]}, "added_tokens_decoder"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_known_is_refused(case: str, byte_level: Path, pieces: Path, tmp_path: Path):
    name, config, named = REFUSED[case]
    folder = tmp_path / "theirs"
    if name == "vocab.json":
        shutil.copytree(byte_level, folder)
    elif name == "vocab.txt":
        write(folder, vocab__txt="\n".join(WORDS))
    else:
        folder.mkdir()
        shutil.copy(pieces / "bpe.model", folder / name)
    write(folder, tokenizer_config__json=config)
    with pytest.raises(TokenizerError) as error:
        load_tokenizer(folder)
    assert str(folder) in str(error.value) and named in str(error.value) and "\n" not in str(error.value)


def test_what_stands_beside_a_tokenizer_json_counts_too(byte_level: Path, tmp_path: Path):
    """An end in special_tokens_map.json, a token behind the vocabulary, a template in a file of its own."""
    folder = tmp_path / "theirs"
    transformers.GPT2Tokenizer.from_pretrained(byte_level).save_pretrained(folder)
    n = len(load_tokenizer(folder))
    write(folder, tokenizer_config__json={"chat_template": [{"name": "default", "template": "in the list"}]})
    assert load_tokenizer(folder).chat_template == "in the list"
    write(folder, tokenizer_config__json={}, special_tokens_map__json={"eos_token": "</s>", "bos_token": "<s>"})
    write(folder, added_tokens__json={"<more>": n}, chat_template__jinja=TEMPLATE)
    ours, theirs = load_tokenizer(folder), transformers.AutoTokenizer.from_pretrained(folder)
    assert ours.end_of_text == theirs.eos_token_id != n - 1 and ours.chat_template == TEMPLATE
    assert ours.encode("the<more>cat") == theirs("the<more>cat", add_special_tokens=False).input_ids


def test_a_marian_folder_is_read_and_imported_with_both_of_its_tokenizers(pieces: Path, tmp_path: Path):
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    marian_folder(theirs, pieces, separate=True)
    sizes = {"vocab_size": 61, "source_vocab_size": 67, "block_size": 13, "n_layer": 1, "n_head": 3, "n_embd": 18}
    tokens = {"start_token": 5, "end_token": 0, "pad_token": 3}
    model = build_model(EncoderDecoderConfig.make(family="original", n_hidden=23, **sizes, **tokens))
    gf.save(tmp_path / "model", model)
    for name in ("config.json", "generation_config.json", "model.safetensors"):
        shutil.copy(tmp_path / "model" / name, theirs)
    import_model(theirs, ours)
    for folder in (theirs, ours):
        assert gf.load(folder)[1] == load_tokenizer(theirs)
        assert load_source_tokenizer(folder) == load_source_tokenizer_of(theirs) != load_tokenizer(theirs)
