"""What a family is called in GGUF: the fields of the header, the names of the tensors, and how some lie otherwise.

A model goes from our words to those of `config.json` and on to GGUF's, and back the same way, so that what a family is
stands written once, in its own file. Which name of a tensor is which is the `gguf` package's table.
"""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

from torch import Tensor

from glassformer.errors import ModelFolderError
from glassformer.hub.families.family import Family
from glassformer.hub.families.registry import FAMILIES
from glassformer.hub.families.weight_table import IDENTITY, TRANSPOSE, Layout
from glassformer.hub.gguf.file import gguf_package

ANOTHER = "take another file of this model"
# Fields that repeat the tensors, or that nothing computes with.
_WITHOUT_EFFECT = ("vocab_size", "tensor_data_layout", "rope.scaling.finetuned", "rope.scaling.original_context_length")


class Architecture:
    """One `general.architecture`, and the family of ours that it is.

    sizes, floats: a field of the header, without the architecture in front: the word of config.json.
    """

    name: ClassVar[str]
    model_type: ClassVar[str]
    sizes: ClassVar[dict[str, str]]
    floats: ClassVar[dict[str, str]]
    optional: ClassVar[frozenset[str]] = frozenset()  # words that some files lack
    read: ClassVar[frozenset[str]] = frozenset()  # further fields of the header that are applied

    @property
    def family(self) -> Family:
        return FAMILIES[self.model_type]

    def fields(self, words: dict[str, Any]) -> dict[str, Any]:
        """The header's fields from config.json's words. Raises `ModelFolderError` for what GGUF cannot express."""
        keys = {**self.sizes, **self.floats}
        return {f"{self.name}.{field}": words[word] for field, word in keys.items() if words.get(word) is not None}

    def words(self, fields: dict[str, Any], tensors: dict[str, tuple[int, ...]]) -> dict[str, Any]:
        """config.json's words from the header's fields and the shapes of the tensors. Raises `ModelFolderError` for a
        field that is missing or of the wrong kind."""
        words: dict[str, Any] = {"model_type": self.model_type, "tie_word_embeddings": "output.weight" not in tensors}
        for kind, table in ((int, self.sizes), (float, self.floats)):
            for field, word in table.items():
                value = fields.get(f"{self.name}.{field}")
                if value is None and word in self.optional:
                    continue
                if isinstance(value, bool) or not isinstance(value, (int, kind)):
                    problem = "is missing" if value is None else f"is {str(value)[:40]!r}, where a number is needed"
                    raise ModelFolderError(f"the field {self.name}.{field} {problem}; {ANOTHER}")
                words[word] = value if kind is int else float(f"{value:.7g}")  # 1e-5, and not its nearest fp32
        self._refuse_others(fields)
        if "token_embd.weight" not in tensors:
            raise ModelFolderError(f"the tensor token_embd.weight is missing; {ANOTHER}")
        return {**words, "vocab_size": tensors["token_embd.weight"][0]}

    def _refuse_others(self, fields: dict[str, Any]) -> None:
        """Raise for a field of this architecture that nothing here applies."""
        known = {*self.sizes, *self.floats, *self.read, *_WITHOUT_EFFECT}
        for name, value in fields.items():
            field = name.removeprefix(f"{self.name}.")
            off = value is not False and value in (0, "", "none")  # False is a word: not causal
            if field != name and field not in known and not off:
                raise ModelFolderError(f"the field {name}={str(value)[:40]!r} is not supported; {ANOTHER}")

    def layout(self, name: str, words: dict[str, Any]) -> Layout:
        """The layout of the tensor of this name there, seen from Hugging Face's layout."""
        return IDENTITY

    def names(self, theirs: list[str], n_layer: int) -> dict[str, str]:
        """Hugging Face's names of these tensors: GGUF's. Raises `ModelFolderError` for a tensor without one."""
        gguf = gguf_package()
        kind = next(kind for kind, name in gguf.MODEL_ARCH_NAMES.items() if name == self.name)
        table = gguf.get_tensor_name_map(kind, n_layer)
        found = {name: table.get_name(name, try_suffixes=(".weight", ".bias")) for name in theirs}
        if unnamed := [name for name, other in found.items() if other is None]:
            raise ModelFolderError(f"GGUF has no name for the tensor {unnamed[0]} of a {self.name} model")
        return found


# How rotary positions are scaled: the way, which is linear where it is missing, and the factor, by its new or old name.
_SCALING = ("rope.scaling.type", "rope.scaling.factor", "rope.scale_linear")


class Qwen3GGUF(Architecture):
    """`qwen3`; the words of Llama."""

    name = "qwen3"
    model_type = "qwen3"
    sizes: ClassVar = {
        "block_count": "num_hidden_layers",
        "context_length": "max_position_embeddings",
        "embedding_length": "hidden_size",
        "feed_forward_length": "intermediate_size",
        "attention.head_count": "num_attention_heads",
        "attention.head_count_kv": "num_key_value_heads",
        "attention.key_length": "head_dim",
    }
    floats: ClassVar = {"rope.freq_base": "rope_theta", "attention.layer_norm_rms_epsilon": "rms_norm_eps"}
    optional = frozenset({"num_key_value_heads", "head_dim", "rope_theta"})
    read = frozenset({*_SCALING, "rope.dimension_count", "attention.value_length"})

    def fields(self, words: dict[str, Any]) -> dict[str, Any]:
        fields = super().fields(words)
        for word in ("use_sliding_window", "attention_bias", "mlp_bias"):
            if words.get(word):
                raise ModelFolderError(f"GGUF's {self.name} has no field for {word}; export --to hf")
        scaling = words.get("rope_parameters") or {"rope_type": "default"}
        if words["hidden_act"] != "silu":
            raise ModelFolderError(f"GGUF's {self.name} has silu alone, and this model {words['hidden_act']}")
        if scaling["rope_type"] == "linear":
            fields[f"{self.name}.rope.scaling.type"] = "linear"
            fields[f"{self.name}.rope.scaling.factor"] = scaling["factor"]
        elif scaling["rope_type"] != "default":
            raise ModelFolderError(f"rotary scaling {scaling['rope_type']!r} is not written to GGUF; linear is")
        return {
            **fields,
            f"{self.name}.attention.value_length": words["head_dim"],
            f"{self.name}.rope.dimension_count": words["head_dim"],
        }

    def words(self, fields: dict[str, Any], tensors: dict[str, tuple[int, ...]]) -> dict[str, Any]:
        words = {"rope_theta": 10_000.0, **super().words(fields, tensors)}
        n_head = words["num_attention_heads"]
        width = words.setdefault("head_dim", words["hidden_size"] // max(n_head, 1))
        for field in ("rope.dimension_count", "attention.value_length"):
            if (value := fields.get(f"{self.name}.{field}", width)) != width:
                raise ModelFolderError(f"{self.name}.{field} is {value}, and heads are {width} wide; {ANOTHER}")
        kind, *factors = (fields.get(f"{self.name}.{field}") for field in _SCALING)
        factor = next((factor for factor in factors if factor), 1.0)
        if kind not in (None, "linear", "none") or "rope_freqs.weight" in tensors:
            raise ModelFolderError("its rotary positions are scaled in a way that a GGUF file does not state exactly")
        if kind != "none" and factor != 1.0:
            words["rope_scaling"] = {"rope_type": "linear", "factor": factor}
        return words


class Qwen2GGUF(Qwen3GGUF):
    """`qwen2`; its biases are tensors like the others."""

    name = "qwen2"
    model_type = "qwen2"


class LlamaGGUF(Qwen3GGUF):
    """`llama`. Its kernels turn channels 2i and 2i + 1 together where Hugging Face turns i and i + D/2, so the rows of
    the matrices for query and key stand in another order."""

    name = "llama"
    model_type = "llama"

    def layout(self, name: str, words: dict[str, Any]) -> Layout:
        heads = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}
        for part, counted in heads.items():
            if f".{part}." in name:
                n_head = words.get(counted) or words["num_attention_heads"]
                return Layout(partial(_halves_to_pairs, n_head), partial(_pairs_to_halves, n_head))
        return IDENTITY


class GPT2GGUF(Architecture):
    """`gpt2`. Its matrices are (out, in), where `Conv1D` has (in, out)."""

    name = "gpt2"
    model_type = "gpt2"
    sizes: ClassVar = {
        "block_count": "n_layer",
        "context_length": "n_positions",
        "embedding_length": "n_embd",
        "feed_forward_length": "n_inner",
        "attention.head_count": "n_head",
    }
    floats: ClassVar = {"attention.layer_norm_epsilon": "layer_norm_epsilon"}

    def fields(self, words: dict[str, Any]) -> dict[str, Any]:
        if words["activation_function"] != "gelu_new":
            raise ModelFolderError(f"GGUF's gpt2 has gelu_new alone, and this model {words['activation_function']}")
        return super().fields(words)

    def layout(self, name: str, words: dict[str, Any]) -> Layout:
        matrices = ("c_attn.weight", "c_proj.weight", "c_fc.weight")
        return TRANSPOSE if name.endswith(matrices) else IDENTITY


class Gemma3GGUF(Qwen3GGUF):
    """`gemma3`. Scales of norms are what is multiplied with, one more than Hugging Face keeps. Which layers have
    windows, and their rotary base, stands in llama.cpp's code and not in the file."""

    name = "gemma3"
    model_type = "gemma3_text"
    sizes: ClassVar = {**Qwen3GGUF.sizes, "attention.sliding_window": "sliding_window"}
    optional = frozenset({*Qwen3GGUF.optional, "sliding_window"})
    read = frozenset({*Qwen3GGUF.read, "final_logit_softcapping"})
    period = 6  # every sixth layer sees all
    layers_of_27b = 62
    local_base = 10_000.0

    def fields(self, words: dict[str, Any]) -> dict[str, Any]:
        types = ["full_attention" if (n + 1) % self.period == 0 else "sliding_attention" for n in range(10_000)]
        if (
            words["layer_types"] != types[: words["num_hidden_layers"]]
            or words["rope_local_base_freq"] != self.local_base
            or words["query_pre_attn_scalar"] != words["head_dim"]
            or words["hidden_activation"] != "gelu_pytorch_tanh"
            or words["final_logit_softcapping"]
        ):
            raise ModelFolderError("GGUF's gemma3 cannot express this order of layers or scale of scores")
        return super().fields({**words, "hidden_act": "silu", "rope_parameters": words.get("rope_scaling")})

    def words(self, fields: dict[str, Any], tensors: dict[str, tuple[int, ...]]) -> dict[str, Any]:
        words = super().words(fields, tensors)
        return {
            **words,
            "sliding_window_pattern": self.period if words.get("sliding_window") else 1,
            "rope_local_base_freq": self.local_base,
            # of the largest, which llama.cpp recognises by its layers, scores are divided by another width
            "query_pre_attn_scalar": words["hidden_size"] // words["num_attention_heads"]
            if words["num_hidden_layers"] == self.layers_of_27b
            else words["head_dim"],
            "final_logit_softcapping": fields.get(f"{self.name}.final_logit_softcapping") or None,
            "hidden_activation": "gelu_pytorch_tanh",
        }

    def layout(self, name: str, words: dict[str, Any]) -> Layout:
        return Layout(lambda w: w + 1, lambda w: w - 1) if name.endswith("norm.weight") else IDENTITY


ARCHITECTURES: dict[str, Architecture] = {
    known.name: known for known in (LlamaGGUF(), Qwen2GGUF(), Qwen3GGUF(), Gemma3GGUF(), GPT2GGUF())
}


def _halves_to_pairs(n_head: int, rows: Tensor) -> Tensor:
    """(H, 2, D/2, ...) -> (H, D/2, 2, ...): the rows of each head by pairs."""
    return rows.view(n_head, 2, -1, *rows.shape[1:]).transpose(1, 2).reshape(rows.shape)


def _pairs_to_halves(n_head: int, rows: Tensor) -> Tensor:
    return rows.view(n_head, -1, 2, *rows.shape[1:]).transpose(1, 2).reshape(rows.shape)
