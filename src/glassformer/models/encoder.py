"""The encoder: every token sees every token. One class is a BERT, a Vision Transformer, and the first half of others.

text, patches, frames or a set ──► stem (+ position) ──► blocks ──► final norm ──► vectors ─┬─► a class for each token
                                                                                     └─► pooled: one for all of them
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from glassformer.errors import UsageError
from glassformer.layers import ACTIVATIONS, PaddingMask
from glassformer.models.encoder_config import EncoderConfig
from glassformer.models.stems import FrameStem, PatchStem, SetStem
from glassformer.models.transformer import Transformer, norm_of, text_stem
from glassformer.taps import Tap


class Encoder(Transformer):
    """Ids (B, T), images (B, channels, size, size), frames (B, mels, F) or the ids of sets (B, T, F) -> vectors
    (B, T, C), and heads to ask them.

    Sequences of a batch may be of different lengths: `lengths` (B,) counts what is no padding, which stands behind and
    is never looked at. Vectors of padding mean nothing.
    """

    answers = frozenset({"masked_token", "class", "token_class", "number"})
    config: EncoderConfig

    def __init__(self, config: EncoderConfig):
        super().__init__()
        self._build(config, _stem(config), causal=False)
        C = config.n_embd
        self.pooler = nn.Linear(C, C) if config.pooler else None
        self.classifier = nn.Linear(C, config.n_classes) if config.has_classifier else None
        second = config.distillation == "heads"
        self.distillation_classifier = nn.Linear(C, config.n_classes) if second else None
        self.transform = nn.Linear(C, C) if config.token_transform else None
        self.transform_norm = norm_of(config) if config.token_transform else None
        self.head: nn.Linear | None = None
        if config.token_head == "vocabulary":
            self.head = nn.Linear(C, config.vocab_size, bias=config.head_bias)
            self.tie_head()
        elif config.token_head == "classes":
            self.head = nn.Linear(C, config.n_classes)
        self.tap_pooled = Tap("pooled")
        self.init_weights()

    def forward(
        self,
        inputs: Tensor,
        lengths_B: Tensor | None = None,
        segments_BT: Tensor | None = None,
        numbers_BTI: Tensor | None = None,
        distances_BTT: Tensor | None = None,
    ) -> Tensor:
        """Inputs of the stem -> vectors (B, T, C). segments: of each token, where the configuration has some. numbers:
        of the members of a set. distances: between the nodes of a graph (`glassformer.layers.Graph`); patches have
            their own.

        Raises:
            UsageError: there are more tokens than `block_size` positions.
        """
        T = self.embedding.n_tokens(inputs)
        if self.config.block_size < T:
            raise UsageError(f"{T} tokens do not fit into block_size={self.config.block_size}; shorten the input")
        pos = torch.arange(T, device=inputs.device)
        more = {"segments_BT": segments_BT, "numbers_BTI": numbers_BTI}
        x_BTC = self.embedding(inputs, pos, self.positions, **{k: v for k, v in more.items() if v is not None})
        if distances_BTT is None and self.follows_patches:
            distances_BTT = self.embedding.distances(inputs.device)
        padding = None if lengths_B is None else PaddingMask(lengths_B)
        return self.run(x_BTC, pos, padding=padding, distances_BTT=distances_BTT)

    @property
    def follows_patches(self) -> bool:
        """Whether a layer's mask is made of the distances of patches on the image."""
        return self.config.stem == "patches" and any(mask.needs_graph for mask in self.masks)

    def pool(self, vectors_BTC: Tensor, lengths_B: Tensor | None = None) -> Tensor:
        """One vector a sequence: (B, T, C) -> (B, C)."""
        if self.config.pooling == "first":
            pooled_BC = vectors_BTC[:, 0]
        elif self.config.pooling == "mean" and lengths_B is None:
            pooled_BC = vectors_BTC.mean(dim=1)
        else:
            if lengths_B is not None:
                there_BT = torch.arange(vectors_BTC.shape[1], device=vectors_BTC.device) < lengths_B[:, None]
                vectors_BTC = vectors_BTC * there_BT.unsqueeze(-1)
            n = lengths_B[:, None] if self.config.pooling == "mean" and lengths_B is not None else None
            pooled_BC = vectors_BTC.sum(dim=1) / (self.config.block_size**0.5 if n is None else n)
        return self.tap_pooled(pooled_BC if self.pooler is None else torch.tanh(self.pooler(pooled_BC)))

    def sequence_logits(self, vectors_BTC: Tensor, lengths_B: Tensor | None = None) -> Tensor:
        """Which class is the sequence of: (B, T, C) -> (B, classes).

        Raises:
            UsageError: the configuration has no such head.
        """
        if self.classifier is None:
            raise UsageError("this encoder has no head for sequences; set n_classes, and token_head other than classes")
        logits_BN = self.read_out(self.classifier, self.pool(vectors_BTC, lengths_B))
        if self.distillation_classifier is None:
            return logits_BN
        return (logits_BN + self.read_out(self.distillation_classifier, vectors_BTC[:, 1])) / 2

    def number(self, vectors_BTC: Tensor, lengths_B: Tensor | None = None) -> Tensor:
        """One number for each sequence, in the unit of what was learned: (B, T, C) -> (B,) fp32.

        Raises:
            UsageError: the configuration has no such head, or one over several classes.
        """
        if self.config.n_classes != 1:
            raise UsageError(f"this encoder has {self.config.n_classes} classes and gives no number; set n_classes=1")
        standard_B = self.sequence_logits(vectors_BTC, lengths_B)[:, 0].float()
        return self.config.number_mean + self.config.number_scale * standard_B

    def token_logits(self, vectors: Tensor) -> Tensor:
        """Which token or class stands at each place: (..., C) -> (..., V or classes), for all vectors or for some.

        Raises:
            UsageError: the configuration has no such head.
        """
        if self.head is None:
            raise UsageError("this encoder has no head for tokens; set token_head=vocabulary or token_head=classes")
        if self.transform is not None and self.transform_norm is not None:
            vectors = self.transform_norm(ACTIVATIONS[self.config.activation](self.transform(vectors)))
        return self.read_out(self.head, vectors)

    def tie_head(self) -> None:
        """Share the embedding's table with the head over the vocabulary, if the configuration ties them."""
        if self.head is not None and self.config.token_head == "vocabulary" and self.config.tied_head:
            self.head.weight = self.embedding.token.weight


def _stem(config: EncoderConfig) -> nn.Module:
    if config.stem == "patches":
        return PatchStem(
            image_size=config.image_size,
            patch_size=config.patch_size,
            n_channels=config.n_channels,
            n_embd=config.n_embd,
            convolutions=config.patch_convolutions,
            class_token=config.class_token,
            distillation_token=config.distillation != "none",
            scale=config.embedding_scale,
            bias=config.patch_bias,
            norm=norm_of(config) if config.embedding_norm else None,
        )
    if config.stem == "frames":
        return FrameStem(n_mels=config.n_mels, n_embd=config.n_embd)
    if config.stem in ("set", "graph"):
        return SetStem(vocab_size=config.vocab_size, n_inputs=config.n_inputs, n_embd=config.n_embd)
    return text_stem(config)
