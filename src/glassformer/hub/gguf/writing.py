"""A model and its tokenizer as a GGUF file, which llama.cpp and what stands on it load.

Nothing is called written before it was read again: by our own reader, whose logits are compared, and by llama.cpp where
llama-cpp-python is installed, which must continue a text with the same tokens.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from glassformer.errors import ModelFolderError, UsageError, one_line
from glassformer.files import atomic_file
from glassformer.hub.families.registry import family_for
from glassformer.hub.families.weight_table import Tensors
from glassformer.hub.gguf.architectures import ARCHITECTURES, Architecture
from glassformer.hub.gguf.file import gguf_package
from glassformer.hub.gguf.reading import ENDS, SAMPLING, load_gguf
from glassformer.hub.gguf.tokenizer_writing import needs_end, tokenizer_to_gguf
from glassformer.hub.state_dict import untied_state
from glassformer.models import GenerationSettings, settings_of
from glassformer.processors.tokenizers import Tokenizer


class NumberFormat(NamedTuple):
    """A number format of matrices. name: the package's. file_type: llama.cpp's number for a file of it. of_itself,
    of_row, at_least: how far a number may be off: a share of itself, of the largest in its row, and in any case."""

    name: str
    file_type: int
    of_itself: float = 0.0
    of_row: float = 0.0
    at_least: float = 2**-22


TYPES = {
    "f32": NumberFormat("F32", 0),
    "f16": NumberFormat("F16", 1, of_itself=2**-11),
    "bf16": NumberFormat("BF16", 32, of_itself=2**-8),
    "q8_0": NumberFormat("Q8_0", 7, of_row=0.6 / 127, at_least=1e-5),  # half a step, and the scale is rounded as well
}
PROBE = 32  # tokens that are compared
TIE = 0.01  # of the largest logit: two tokens as near may change places, because llama.cpp looks GELU up in a table
REPORT = "please report this with the model's config.json"
PROBE_TEXT = 256  # tokens in a text that both tokenizers read


class Verified(NamedTuple):
    """How a written file was checked. difference: of logits, as a share of the largest; tokens: how many greedy ones
    llama.cpp gave in agreement, of how many, or None where it is not installed."""

    difference: float
    tokens: tuple[int, int] | None


def save_gguf(path: str | os.PathLike[str], model: Any, tokenizer: Tokenizer, *, type: str = "f32") -> Verified:
    """Write a GGUF file, whole and verified or not at all.

    Args:
        type: number format of the matrices: f32, f16, bf16 or q8_0 (8 bits, blocks of 32 with one scale). Norms, biases
            and positions stay fp32.

    Raises:
        UsageError: there is no such type.
        ModelFolderError: GGUF has no word for this model or tokenizer, or what was written reads otherwise.
        MissingExtraError: without the `gguf` package.
    """
    if type not in TYPES:
        raise UsageError(f"type={type!r} is unknown; use {', '.join(TYPES)}")
    gguf = gguf_package()
    family = family_for(model.config)
    architecture = next((a for a in ARCHITECTURES.values() if a.model_type == family.model_type), None)
    if architecture is None:
        known = ", ".join(a.model_type for a in ARCHITECTURES.values())
        raise ModelFolderError(f"a {family.model_type} model cannot be written as GGUF; {known} can")
    words = family.write_config(model.config)
    tensors = _tensors(model, architecture, words)
    rows = model.config.vocab_size
    if needs_end(tokenizer) and tokenizer.vocab_size == rows:
        tensors, rows = _with_one_more(model, tensors), rows + 1
    fields = {**architecture.fields(words), **tokenizer_to_gguf(tokenizer, rows)}
    fields |= _settings_to_gguf(settings_of(model), tokenizer)
    with atomic_file(path) as temporary:
        writer = gguf.GGUFWriter(temporary, architecture.name)
        for name, value in {**fields, "general.file_type": TYPES[type].file_type}.items():
            _add(writer, name, value)
        for name, tensor in tensors.items():
            _add_tensor(gguf, writer, name, tensor, TYPES[type].name)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        try:
            return verify_gguf(temporary, model, tokenizer, type=type)
        except ModelFolderError as error:
            raise ModelFolderError(str(error).replace(str(temporary), str(path))) from None


@torch.inference_mode()
def verify_gguf(path: str | os.PathLike[str], model: Any, tokenizer: Tokenizer, *, type: str) -> Verified:
    """Read a file again and compare it with the model that it was made from. Raises `ModelFolderError` where a number
    differs by more than its format explains, or, in f32, a logit."""
    again, its_tokenizer = load_gguf(path)
    _check_numbers(path, model.state_dict(), again.state_dict(), type)
    text = _probe_text(tokenizer)
    if its_tokenizer.encode(text) != tokenizer.encode(text):
        raise ModelFolderError(f"{path}: its tokenizer gives other ids; {REPORT}")
    shape = (1, min(PROBE, model.config.block_size))
    ids_BT = torch.randint(model.config.vocab_size, shape, generator=torch.Generator().manual_seed(0))
    ours_BTV = model(ids_BT.to(next(model.parameters()).device)).float().cpu()
    theirs_BTV = again(ids_BT)[..., : ours_BTV.shape[-1]]
    difference = float((ours_BTV - theirs_BTV).abs().max() / ours_BTV.abs().max().clamp_min(1e-6))
    if not difference <= (1e-5 if type == "f32" else math.inf):
        raise ModelFolderError(f"{path}: read again, its logits are off by {difference:.1%} of the largest one")
    prompt = ids_BT[0, : max(1, ids_BT.shape[1] // 2)].tolist()
    return Verified(difference, _ask_llama_cpp(Path(path), model, prompt, exact=type == "f32"))


def _check_numbers(where: str | os.PathLike[str], ours: Tensors, theirs: Tensors, type: str) -> None:
    """Every parameter is what it was, rounded; what was added (biases that a family always has) is zero."""
    form = TYPES[type]
    for name, read in theirs.items():
        was = ours[name].float().cpu() if name in ours else torch.zeros_like(read)
        off = (read[: len(was)] - was).abs()  # a vocabulary may have got a row more
        bound = form.of_itself * was.abs() + form.of_row * was.abs().amax(dim=-1, keepdim=True) + form.at_least
        if not (off <= bound).all():
            raise ModelFolderError(f"{where}: read again, {name} is off by {float(off.max()):.2g}, too much for {type}")


def _probe_text(tokenizer: Tokenizer) -> str:
    """A text in which tokens of all parts of the vocabulary occur, those of several bytes too."""
    plain = sorted({*range(tokenizer.vocab_size)} - {*tokenizer.special_tokens.values()})
    texts = []
    for number in [*plain[:20], *plain[20 :: max(1, len(plain) // PROBE_TEXT)]]:
        with contextlib.suppress(UsageError):  # a number that is no token's
            texts.append(tokenizer.decode([number]))
    return "".join(texts)


def _ask_llama_cpp(path: Path, model: Any, prompt: list[int], *, exact: bool) -> tuple[int, int] | None:
    """How many greedy tokens llama.cpp gives as we do, until the first other one."""
    try:
        from llama_cpp import Llama
    except ImportError:
        return None
    n = min(PROBE, model.config.block_size - len(prompt))
    if n < 1:
        return None
    fp32 = gguf_package().GGMLQuantizationType.F32  # its cache is fp16 unless set
    try:
        llama = Llama(str(path), n_ctx=len(prompt) + n + 1, type_k=fp32, type_v=fp32, verbose=False, logits_all=False)
    except ValueError as error:
        raise ModelFolderError(f"{path}: llama.cpp does not load it ({one_line(error)}); {REPORT}") from None
    theirs = list(itertools.islice(llama.generate(prompt, temp=0.0, repeat_penalty=1.0), n))
    V = model.config.vocab_size
    ids_T = torch.tensor([*prompt, *theirs[:-1]], device=next(model.parameters()).device).clamp_max(V - 1)
    logits_nV = model(ids_T.unsqueeze(0))[0, len(prompt) - 1 :].float().cpu()
    ours = logits_nV.argmax(dim=-1).tolist()
    same = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b), n)
    if same < n and exact:
        behind = logits_nV[same, ours[same]] - logits_nV[same, theirs[same]] if theirs[same] < V else math.inf
        if behind > TIE * logits_nV.abs().max():
            raise ModelFolderError(f"{path}: llama.cpp gives other tokens from token {same + 1} of {n} on; {REPORT}")
    return same, n


def _tensors(model: Any, architecture: Architecture, words: dict[str, Any]) -> Tensors:
    """The model's tensors under GGUF's names and in GGUF's form, fp32."""
    state = {name: tensor.detach().float().cpu() for name, tensor in untied_state(model).items()}
    theirs = architecture.family.write_tensors(state, model.config)
    names = architecture.names(list(theirs), model.config.n_layer)
    return {names[name]: architecture.layout(name, words).write(t).contiguous() for name, t in theirs.items()}


@torch.inference_mode()
def _with_one_more(model: Any, tensors: Tensors) -> Tensors:
    """With a row for an end of text that the model never had: a copy of the token's that it finds least likely."""
    config = model.config
    ids_BT = torch.arange(min(config.vocab_size, 256), device=next(model.parameters()).device)[:, None]
    rarest = int(model(ids_BT).float().softmax(dim=-1).mean(dim=(0, 1)).argmin())
    tables = ("token_embd.weight", "output.weight")
    return {n: torch.cat((t, t[rarest : rarest + 1])) if n in tables else t for n, t in tensors.items()}


def _add(writer: Any, name: str, value: Any) -> None:
    adders = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
    adders.get(type(value), writer.add_array)(name, value)


def _add_tensor(gguf: Any, writer: Any, name: str, tensor: Tensor, kind: str) -> None:
    """Matrices in the number format asked for, or f16 where a row is no multiple of its blocks; the rest in fp32."""
    if tensor.dim() < 2 or name.startswith("position_embd"):
        kind = "F32"
    wanted = gguf.GGMLQuantizationType[kind]
    if math.prod(tensor.shape[-1:]) % gguf.GGML_QUANT_SIZES[wanted][0]:
        wanted = gguf.GGMLQuantizationType.F16
    numbers = gguf.quants.quantize(tensor.numpy(), wanted)
    writer.add_tensor(name, numbers, raw_dtype=wanted)


def _settings_to_gguf(settings: GenerationSettings, tokenizer: Tokenizer) -> dict[str, Any]:
    """The fields of a header."""
    ours = settings.sampling_defaults()
    fields = {f"general.sampling.{theirs}": ours[name] for name, theirs in SAMPLING.items() if name in ours}
    further = sorted(tokenizer.ends - {tokenizer.end_of_text})
    roles = ENDS[1:] if tokenizer.end_of_text is not None else ()
    fields |= {f"tokenizer.ggml.{role}": end for role, end in zip(roles, further, strict=False)}
    if settings.bos_token_id is not None:
        fields["tokenizer.ggml.bos_token_id"] = settings.bos_token_id
    if settings.pad_token_id is not None:
        fields["tokenizer.ggml.padding_token_id"] = settings.pad_token_id
    return fields
