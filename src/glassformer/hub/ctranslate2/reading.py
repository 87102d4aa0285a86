"""A folder of CTranslate2 with a Whisper in it (faster-whisper's form) as a model and its tokenizer.

model.bin         the tensors; queries, keys and values lie in one matrix, as in ours
config.json       tokens that are never written, heads that align words with time
tokenizer.json    text to ids
vocabulary.txt    (or .json) all tokens in their order, the timestamps too, which tokenizer.json lacks

Whisper: Radford et al. 2022, https://arxiv.org/abs/2212.04356.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import AddedToken

from glassformer.errors import GlassformerError, ModelFolderError, TokenizerError, one_line
from glassformer.files import disk_errors
from glassformer.hub.configuration import read_json
from glassformer.hub.ctranslate2.file import CTranslate2File, read_ctranslate2
from glassformer.hub.ctranslate2.whisper_files import END, START, whisper_files
from glassformer.hub.families.weight_table import Row, Tensors, one
from glassformer.hub.families.whisper import WAVES, Whisper
from glassformer.hub.state_dict import model_of
from glassformer.models import EncoderDecoderConfig
from glassformer.processors.tokenizers import Tokenizer
from glassformer.processors.tokenizers.files import read_text
from glassformer.processors.tokenizers.reading import library_from_json
from glassformer.processors.tokenizers.reading import read_json as read_tokenizer_json
from glassformer.text_files import JsonError, parse_json

KIND, REVISION = "WhisperSpec", 3
GELU = 3  # of ctranslate2.specs.common_spec.Activation
EMBEDDING, HEAD = "decoder/embeddings/weight", "decoder/projection/weight"
HEARD = "encoder/position_encodings/encodings"
# What must be so; heads are counted from the file, alignment has nothing to do with logits, all else must be 0.
_SETTINGS = {"decoder/activation": GELU, "decoder/pre_norm": 1}
_FREE = {"encoder/num_heads", "decoder/num_heads", "decoder/alignment_heads", "decoder/alignment_layer"}
_TIMESTAMP = re.compile(r"<\|\d{1,2}\.\d\d\|>")


class CTranslate2Whisper(NamedTuple):
    """What a folder holds. tokens: the text of every id, as vocabularies spell bytes."""

    file: CTranslate2File
    config: EncoderDecoderConfig
    tokens: list[str]


def is_ctranslate2(folder: Path) -> bool:
    """Whether the weights of a folder are CTranslate2's, and no safetensors and no pickle that has their name."""
    path = folder / "model.bin"
    if not path.is_file() or any(folder.glob("*.safetensors")):
        return False
    with disk_errors(path), open(path, "rb") as file:
        return not file.read(4).startswith((b"PK", b"\x80"))


def load_ctranslate2(
    folder: Path, *, with_tokenizer: bool = True
) -> tuple[Any, Tokenizer | None, dict[str, dict[str, Any]]]:
    """The model in fp32, its tokenizer, and the JSON files that `transformers` reads beside them (name and content).
    Raises `ModelFolderError` if it is damaged, no Whisper, or in numbers that are not read. Raises `TokenizerError` if
    its tokenizer is missing, damaged, or another model's."""
    file, config, tokens = open_ctranslate2(folder)
    path = folder / "model.bin"
    tensors = dict(file.tensors)
    head = tensors.pop(HEAD, None)
    tied = file.second_names.get(HEAD) == EMBEDDING
    if not tied and (head is None or bytes(head.raw) != bytes(tensors[EMBEDDING].raw)):
        raise ModelFolderError(f"{path}: {HEAD} is not the table of the embedding, unlike in a Whisper")
    if other := sorted(file.second_names.keys() - {HEAD}):
        raise ModelFolderError(f"{path}: {one_line(other[0], most=100)} has no place in a Whisper")
    try:
        model = model_of(_Layout(), config, {name: tensor.numbers() for name, tensor in tensors.items()}, path)
    except ModelFolderError as error:  # it may show a name of the file
        reason = str(error).removeprefix(f"{path}: ")
        raise ModelFolderError(f"{path}: {one_line(reason)}") from None
    given = read_json(folder / "config.json")
    try:
        beside = whisper_files(config, tokens, given)
    except ModelFolderError as error:
        raise ModelFolderError(f"{folder / 'config.json'}: {error}") from None
    return model, whisper_tokenizer(folder, tokens) if with_tokenizer else None, beside


def open_ctranslate2(folder: Path) -> CTranslate2Whisper:
    """The file and the configuration that follows from the shapes of its tensors. Raises as `load_ctranslate2`."""
    path = folder / "model.bin"
    file = read_ctranslate2(path)
    if (file.kind, file.revision) != (KIND, REVISION):
        kind = f"{one_line(file.kind, most=60)}, revision {file.revision}"
        raise ModelFolderError(f"{path}: a model of CTranslate2 ({kind}); {KIND}, revision {REVISION}, is read")
    for name in sorted(file.settings.keys() - _FREE | _SETTINGS.keys()):
        wanted, value = _SETTINGS.get(name, 0), file.settings.get(name)
        if value != wanted:
            raise ModelFolderError(f"{path}: {one_line(name, most=100)} is {value}, where a Whisper has {wanted}")
    tokens = _vocabulary(folder)
    try:
        words = _words(file)
        if len(tokens) != words["vocab_size"]:
            raise ModelFolderError(f"{len(tokens):,} tokens in the vocabulary, {words['vocab_size']:,} in the model")
        ids = {token: number for number, token in enumerate(tokens)}
        if lost := {START, END} - ids.keys():
            raise ModelFolderError(f"the vocabulary has no {min(lost)}, which a Whisper needs")
        special = {"decoder_start_token_id": ids[START], "eos_token_id": ids[END], "pad_token_id": ids[END]}
        return CTranslate2Whisper(file, _Layout().read_config({**words, **special}), tokens)
    except GlassformerError as error:  # also a size that a configuration refuses
        raise ModelFolderError(f"{path}: {one_line(error)}") from None


def whisper_tokenizer(folder: Path, tokens: list[str]) -> Tokenizer:
    """The tokenizer of a folder with this vocabulary. Timestamps are no special tokens, as everywhere. Raises
    `TokenizerError` if it is missing, damaged, or does not give these tokens these ids."""
    file = folder / "tokenizer.json"
    data = read_tokenizer_json(file)
    if not isinstance(data.get("model"), dict):
        raise TokenizerError(f'{file}: has no "model"; a tokenizer.json of the `tokenizers` library is needed')
    library = library_from_json(data, file)
    known = library.get_vocab()
    times = [token for token in tokens if token not in known and _TIMESTAMP.fullmatch(token)]
    library.add_tokens([AddedToken(time, special=False, normalized=False) for time in times])
    if library.get_vocab() != {token: number for number, token in enumerate(tokens)}:
        raise TokenizerError(f"{file}: its tokens are not those of the vocabulary beside it; fetch both again")
    special = sorted(number for number, token in library.get_added_tokens_decoder().items() if token.special)
    settings: dict[str, Any] = {f"{part}_token": END for part in ("bos", "eos", "pad", "unk")}
    settings["additional_special_tokens"] = [tokens[number] for number in special]
    settings["tokenizer_class"] = "WhisperTokenizer"  # it knows of timestamps, and a test holds its ids equal
    return Tokenizer(library, end_of_text=END, settings=settings)


def _vocabulary(folder: Path) -> list[str]:
    path = folder / "vocabulary.json"
    if not path.is_file():
        return read_text(folder / "vocabulary.txt").removesuffix("\n").split("\n")
    try:
        tokens = parse_json(read_text(path))
    except JsonError:
        raise TokenizerError(f"{path}: not valid JSON; it is damaged or cut short: fetch it again") from None
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        raise TokenizerError(f"{path}: a list of texts is needed; is it the right file?")
    return tokens


def _words(file: CTranslate2File) -> dict[str, Any]:
    """config.json of Hugging Face's, but for special tokens, out of the shapes of the tensors."""

    def shape(name: str, rank: int) -> tuple[int, ...]:
        if name not in file.tensors:
            raise ModelFolderError(f"tensor {name} is missing; fetch the file again")
        if len(file.tensors[name].shape) != rank:
            raise ModelFolderError(f"tensor {name} cannot have the shape {file.tensors[name].shape}")
        return file.tensors[name].shape

    words: dict[str, Any] = {"activation_function": "gelu", "num_mel_bins": shape("encoder/conv1/weight", 3)[1]}
    words["vocab_size"], words["d_model"] = shape(EMBEDDING, 2)
    words["max_source_positions"], _ = shape(HEARD, 2)
    words["max_target_positions"], _ = shape("decoder/position_encodings/encodings", 2)
    for side in ("encoder", "decoder"):
        found = {match[1] for name in file.tensors if (match := re.match(rf"{side}/layer_(\d+)/", name))}
        words[f"{side}_layers"] = len(found)
        words[f"{side}_ffn_dim"] = shape(f"{side}/layer_0/ffn/linear_0/weight", 2)[0]
        words[f"{side}_attention_heads"] = heads = file.settings.get(f"{side}/num_heads")
        if not isinstance(heads, int):
            raise ModelFolderError(f"{side}/num_heads is {heads}, where a number of heads is needed")
    return words


# The parts of a layer, in ours and there; the encoder has those without `cross`.
_PARTS = {
    "attention_norm": "self_attention/layer_norm",
    "attention.qkv": "self_attention/linear_0",
    "attention.out": "self_attention/linear_1",
    "cross_norm": "attention/layer_norm",
    "cross_attention.query": "attention/linear_0",
    "cross_attention.key_value": "attention/linear_1",
    "cross_attention.out": "attention/linear_2",
    "feedforward_norm": "ffn/layer_norm",
    "feedforward.up": "ffn/linear_0",
    "feedforward.down": "ffn/linear_1",
}


class _Layout(Whisper):
    """A Whisper's tensors by CTranslate2's names."""

    def table(self, c: EncoderDecoderConfig) -> list[Row]:
        rows = [
            *_layer("encoder.embedding.first", "encoder/conv1"),
            *_layer("encoder.embedding.second", "encoder/conv2"),
            one("decoder.embedding.token.weight", EMBEDDING),
            one("decoder.positions.weight", "decoder/position_encodings/encodings"),
        ]
        for side, n_layer in (("encoder", c.encoder.n_layer), ("decoder", c.decoder.n_layer)):
            parts = {ours: theirs for ours, theirs in _PARTS.items() if side == "decoder" or "cross" not in ours}
            for number in range(n_layer):
                for ours, theirs in parts.items():
                    rows += _layer(f"{side}.blocks.{number}.{ours}", f"{side}/layer_{number}/{theirs}")
            rows += _layer(f"{side}.final_norm", f"{side}/layer_norm")
        return rows

    def normalize_keys(self, theirs: Tensors, c: EncoderDecoderConfig) -> Tensors:
        return super().normalize_keys({WAVES if name == HEARD else name: t for name, t in theirs.items()}, c)


def _layer(ours: str, theirs: str) -> tuple[Row, Row]:
    weight, bias = ("gamma", "beta") if theirs.endswith("layer_norm") else ("weight", "bias")
    return one(f"{ours}.weight", f"{theirs}/{weight}"), one(f"{ours}.bias", f"{theirs}/{bias}")
