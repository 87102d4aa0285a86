"""A toy Whisper of transformers with a window of one second, its tokenizer, and sounds for it."""

from __future__ import annotations

import numpy as np
import torch
from tokenizers import AddedToken
from toys import shaken
from transformers import GenerationConfig, WhisperConfig, WhisperForConditionalGeneration

from glassformer.processors.tokenizers import Tokenizer
from glassformer.processors.tokenizers.alphabet import CHARACTER_TO_BYTE
from glassformer.processors.tokenizers.gpt2 import byte_level_bpe

LETTERS = sorted(CHARACTER_TO_BYTE, key=CHARACTER_TO_BYTE.__getitem__)
SPECIALS = ["<|endoftext|>", "<|startoftranscript|>", "<|startofprev|>", "<|nocaptions|>", "<|notimestamps|>"]
TIMES = [f"<|{i / 50:.2f}|>" for i in range(51)]
TOKENS = [*LETTERS, *SPECIALS, *TIMES]
END, START, BEFORE, NO_SPEECH, NO_TIMES = range(256, 261)
FIRST_TIME = 261


def tokenizer() -> Tokenizer:
    library = byte_level_bpe({letter: i for i, letter in enumerate(LETTERS)}, [])
    library.add_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIALS])
    library.add_tokens([AddedToken(time, special=False, normalized=False) for time in TIMES])
    assert library.get_vocab() == {token: i for i, token in enumerate(TOKENS)}
    return Tokenizer(library, end_of_text=SPECIALS[0])


def theirs(seed: int) -> WhisperForConditionalGeneration:
    """A window of one second; all weights random, so that time stamps and text come in turns."""
    config = WhisperConfig(
        vocab_size=len(TOKENS), d_model=18, encoder_layers=1, decoder_layers=2, encoder_attention_heads=3,
        decoder_attention_heads=3, encoder_ffn_dim=23, decoder_ffn_dim=29, num_mel_bins=7, max_source_positions=50,
        max_target_positions=42, decoder_start_token_id=START, bos_token_id=START, eos_token_id=END, pad_token_id=END,
        suppress_tokens=None, begin_suppress_tokens=None,
    )  # fmt: skip
    torch.manual_seed(seed)
    model = WhisperForConditionalGeneration(config)
    waves = model.model.encoder.embed_positions.weight.clone()
    shaken(model)
    with torch.no_grad():
        model.model.encoder.embed_positions.weight.copy_(waves)
        model.proj_out.weight[FIRST_TIME:] *= 1.5
        model.model.decoder.embed_positions.weight *= 5  # else one token follows itself for ever
    model.generation_config = GenerationConfig(
        decoder_start_token_id=START, bos_token_id=START, eos_token_id=END, pad_token_id=END,
        suppress_tokens=[7, 65, START, BEFORE, NO_SPEECH], begin_suppress_tokens=[32, END],
        no_timestamps_token_id=NO_TIMES, max_initial_timestamp_index=20, is_multilingual=False,
        return_timestamps=False, max_new_tokens=20,
    )  # fmt: skip
    return model.eval()


def sounds(n: int, most: int = 16_000) -> list[np.ndarray]:
    random = np.random.default_rng(n)
    return [random.normal(size=int(random.integers(2000, most))).astype(np.float32) * 0.1 for _ in range(n)]


def folder_of(folder, seed: int = 0) -> WhisperForConditionalGeneration:
    """The model that is saved in a folder with its tokenizer and its feature extractor."""
    from transformers import WhisperFeatureExtractor

    model = theirs(seed)
    model.save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=7, chunk_length=1).save_pretrained(folder)
    tokenizer().save(folder)
    return model
