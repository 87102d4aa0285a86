"""What both sides of a comparison read: texts, pairs, labelled texts and toy models of `transformers`, made once.

No model here is made by glassformer: the texts are cut out of the Tiny Shakespeare that comes with the package.
"""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

SPECIALS = ["<pad>", "<s>", "</s>", "<unk>", "<mask>", *(f"<extra_id_{i}>" for i in range(8))]
PAD, START, END = 0, 1, 2
VOCABULARY = 320
SIZES = {
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 96,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 96,
}
LLAMA = {**SIZES, "num_key_value_heads": 2, "bos_token_id": START, "eos_token_id": END, "pad_token_id": PAD}
LLAMA_WIDE = {**LLAMA, "head_dim": 32}
WINDOWED = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 8}
TRANSLATOR = {
    "vocab_size": VOCABULARY,
    "d_model": 64,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 96,
    "decoder_ffn_dim": 96,
    "pad_token_id": PAD,
    "bos_token_id": START,
    "eos_token_id": END,
    "forced_eos_token_id": END,
    "decoder_start_token_id": PAD,
    "activation_function": "gelu",
}
T5 = {"vocab_size": VOCABULARY, "d_model": 64, "d_kv": 16, "d_ff": 96, "num_layers": 2, "num_heads": 4}
T5 |= {"pad_token_id": PAD, "eos_token_id": END, "decoder_start_token_id": PAD}
GPT2 = {"vocab_size": VOCABULARY, "n_positions": 96, "n_embd": 64, "n_layer": 2, "n_head": 4}
GPT2 |= {"bos_token_id": START, "eos_token_id": END}
GPT_NEO = {k: v for k, v in SIZES.items() if not k.startswith("num_")} | {"num_heads": 4, "num_layers": 2}
GPT_NEO |= {"attention_types": [[["global", "local"], 1]], "window_size": 8, "bos_token_id": START, "eos_token_id": END}
NEOX = {"bos_token_id": START, "eos_token_id": END}
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
QWEN_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64}
BERT = {**SIZES, "pad_token_id": PAD}
LABELS = {"num_labels": 3, "id2label": {0: "bad", 1: "fair", 2: "good"}, "label2id": {"bad": 0, "fair": 1, "good": 2}}
VIT = {k: SIZES[k] for k in SIZES if k not in ("vocab_size", "max_position_embeddings")}
VIT |= {"image_size": 16, "patch_size": 8, "num_channels": 3, "num_labels": 5}
WHISPER = {k: v for k, v in TRANSLATOR.items() if k != "forced_eos_token_id"}
WHISPER |= {"num_mel_bins": 8, "max_source_positions": 16, "max_target_positions": 32, "begin_suppress_tokens": None}

# name: (configuration, model, fields); the families that hub reads, each once, the four uses of BERT apart
MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "gpt2": ("GPT2Config", "GPT2LMHeadModel", GPT2),
    "gpt_neo": ("GPTNeoConfig", "GPTNeoForCausalLM", GPT_NEO),
    "gpt_neox": ("GPTNeoXConfig", "GPTNeoXForCausalLM", {**SIZES, **NEOX}),
    "llama": ("LlamaConfig", "LlamaForCausalLM", LLAMA),
    "qwen2": ("Qwen2Config", "Qwen2ForCausalLM", LLAMA),
    "qwen3": ("Qwen3Config", "Qwen3ForCausalLM", LLAMA_WIDE),
    "mistral": ("MistralConfig", "MistralForCausalLM", {**LLAMA, "sliding_window": 8}),
    "phi3": ("Phi3Config", "Phi3ForCausalLM", LLAMA),
    "olmo2": ("Olmo2Config", "Olmo2ForCausalLM", LLAMA),
    "smollm3": ("SmolLM3Config", "SmolLM3ForCausalLM", {**LLAMA, "no_rope_layer_interval": 2}),
    "gemma2": ("Gemma2Config", "Gemma2ForCausalLM", {**LLAMA_WIDE, **WINDOWED}),
    "gemma3": ("Gemma3TextConfig", "Gemma3ForCausalLM", {**LLAMA_WIDE, **WINDOWED}),
    "mixtral": ("MixtralConfig", "MixtralForCausalLM", {**LLAMA, **EXPERTS, "sliding_window": 8}),
    "qwen3_moe": ("Qwen3MoeConfig", "Qwen3MoeForCausalLM", {**LLAMA_WIDE, **QWEN_EXPERTS}),
    "gpt_oss": ("GptOssConfig", "GptOssForCausalLM", {**LLAMA_WIDE, **EXPERTS, "sliding_window": 8}),
    "bert": ("BertConfig", "BertForMaskedLM", BERT),
    "bert-classes": ("BertConfig", "BertForSequenceClassification", {**BERT, **LABELS}),
    "bert-tags": ("BertConfig", "BertForTokenClassification", {**BERT, **LABELS}),
    "bert-vectors": ("BertConfig", "BertModel", BERT),
    "t5": ("T5Config", "T5ForConditionalGeneration", T5),
    "marian": ("MarianConfig", "MarianMTModel", {**TRANSLATOR, "max_position_embeddings": 96}),
    "bart": ("BartConfig", "BartForConditionalGeneration", {**TRANSLATOR, "max_position_embeddings": 96}),
    "vit": ("ViTConfig", "ViTForImageClassification", VIT),
    "whisper": ("WhisperConfig", "WhisperForConditionalGeneration", WHISPER),
}
ENCODERS = ("bert", "bert-classes", "bert-tags", "bert-vectors")
TRANSLATORS = ("t5", "marian", "bart")
WITHOUT_TEXT = ("vit",)
DECODERS = tuple(name for name in MODELS if name not in (*ENCODERS, *TRANSLATORS, *WITHOUT_TEXT, "whisper"))


def make(folder: Path, package: Path) -> None:
    """Write all inputs into `folder`, from the Tiny Shakespeare in `package`, unless they are there."""
    if (folder / "done").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    [packed] = package.rglob("tinyshakespeare.txt.gz")
    text = gzip.decompress(packed.read_bytes()).decode()[:120_000]
    (folder / "play.txt").write_text(text, encoding="utf-8")
    lines = [line for line in text.splitlines() if 12 < len(line) < 60 and not line.endswith(":")][:1500]
    _write(folder / "pairs.tsv", [f"{line}\t{_reversed(line)}\t{_split(i)}" for i, line in enumerate(lines)])
    _write(folder / "spellings.tsv", [f"{w}\t{' '.join(w.upper())}" for w in sorted(set(text.lower().split()))[:1500]])
    labelled = ({"text": line, "label": _label(line), "split": _split(i)} for i, line in enumerate(lines))
    _write(folder / "labelled.jsonl", [json.dumps(row) for row in labelled])
    _write(folder / "documents.jsonl", [json.dumps({"text": part}) for part in text.split("\n\n") if part])
    for name in MODELS:
        _make_model(folder / "models" / name, name, text)
    (folder / "done").touch()


def _write(path: Path, lines: list[str]) -> None:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _split(i: int) -> str:
    return {7: "validation", 8: "test"}.get(i % 10, "train")


def _reversed(line: str) -> str:
    return " ".join(word[::-1] for word in line.split())


def _label(line: str) -> str:
    return "question" if line.endswith("?") else "cry" if line.endswith("!") else "statement"


def _make_model(folder: Path, name: str, text: str) -> None:
    """A model of `transformers` with large random weights (every parameter counts) and a tokenizer beside it."""
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    configuration, model, fields = MODELS[name]
    torch.manual_seed(random.Random(name).randrange(2**31))
    made = getattr(transformers, model)(getattr(transformers, configuration)(**fields)).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.requires_grad:
                centre = 1.0 if parameter.dim() == 1 and parameter.mean() > 0.5 else 0.0  # the scale of a norm
                parameter.copy_(centre + 0.15 * torch.randn_like(parameter))
    made.save_pretrained(folder)
    if name not in WITHOUT_TEXT:
        _tokenizer(text, wordpiece=name in ENCODERS).save_pretrained(folder)


def _tokenizer(text: str, *, wordpiece: bool) -> Any:
    import tokenizers
    import transformers
    from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

    options: dict[str, Any] = {"vocab_size": VOCABULARY, "special_tokens": SPECIALS, "show_progress": False}
    if wordpiece:
        library = tokenizers.Tokenizer(models.WordPiece(unk_token="<unk>"))
        library.normalizer = normalizers.BertNormalizer(lowercase=True)
        library.pre_tokenizer, library.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
        trainer: Any = trainers.WordPieceTrainer(**options)
    else:
        library = tokenizers.Tokenizer(models.BPE())
        library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        library.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), **options)
    library.train_from_iterator([text], trainer)
    named = {
        "pad_token": "<pad>",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "mask_token": "<mask>",
    }
    if wordpiece:
        named |= {"cls_token": "<s>", "sep_token": "</s>"}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=library, **named)
