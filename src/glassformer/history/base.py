"""What the models of this package have in common: the methods that every model has, and their initialisation.

B batch, T time, S source length, C channels, V vocabulary; H is the width of a hidden state.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

from torch import Tensor, nn

from glassformer.errors import UsageError, did_you_mean
from glassformer.history.cache import TokenCache
from glassformer.models.counts import FlopsPerToken
from glassformer.models.init import INITS
from glassformer.models.transformer import Model
from glassformer.taps import Tap

OWN = "own"  # the name of the way in which these models are initialised by default


class HistoryModel(Model):
    """A model with the methods of `Decoder` and `EncoderDecoder` that have nothing to do with what it computes."""

    answers: ClassVar[frozenset[str]] = frozenset({"next_token"})
    cache_type: ClassVar[type[TokenCache]] = TokenCache

    def __init__(self, config: Any):
        super().__init__()
        self.config = config
        self.dropout = 0.0
        self.tap_logits = Tap("logits")

    def set_dropout(self, p: float, attention: float | None = None, tokens: float = 0.0) -> None:
        """Set the dropout rate of embeddings and outputs, and between layers, but never from one moment to the next
        (Zaremba et al. 2014, https://arxiv.org/abs/1409.2329). attention, tokens: of other models; without effect."""
        for module in self.modules():
            if isinstance(module, (HistoryModel, nn.RNNBase)):
                module.dropout = p

    def init_weights(self, kind: str = OWN) -> None:
        """Draw all weights again, from the global generator: `own` (`own_init`), or one of the Decoder's `INITS`.

        Raises:
            UsageError: there is no such way.
        """
        if kind not in (OWN, *INITS):
            raise UsageError(f"init={kind!r} is unknown; {did_you_mean(kind, (OWN, *INITS))}")
        own_init(self)  # biases too, which the others know by name
        if kind != OWN:
            INITS[kind](self, getattr(self.config, "n_layer", 1))

    def new_cache(self, batch_size: int = 1, capacity: int | None = None) -> Any:
        """An empty cache on this model's device."""
        return self.cache_type(batch_size, capacity or self.config.block_size, next(self.parameters()).device)

    def flops_per_token(self) -> FlopsPerToken:
        """Operations a token by the convention of `glassformer.models.flops_per_token`: 2 for each weight of a matrix
        that the token is multiplied with; looking up a row is none, and training takes three times as much."""
        tables = {id(m.weight) for m in self.modules() if isinstance(m, nn.Embedding)}
        forward = 2 * sum(p.numel() for p in self.parameters() if p.dim() == 2 and id(p) not in tables)
        return FlopsPerToken(forward, 3 * forward)


class LanguageModel(HistoryModel):
    """ids (B, T) -> logits (B, T, V). A subclass gives `hidden` and, where that is not the logits already, `logits`."""

    def forward(self, ids_BT: Tensor, *, cache: TokenCache | None = None) -> Tensor:
        """(B, T) -> (B, T, V). With a cache, `ids` are the tokens after those it holds, and it is extended."""
        return self.logits(self.hidden(ids_BT, cache=cache))

    def hidden(self, ids_BT: Tensor, *, cache: Any = None) -> Tensor:
        """What the logits are made of: (B, T) -> (B, T, H)."""
        raise NotImplementedError

    def logits(self, hidden_BTV: Tensor) -> Tensor:
        """As they are: (B, T, V) -> (B, T, V)."""
        return self.tap_logits(hidden_BTV)


def with_past(ids_BT: Tensor, cache: TokenCache | None, reach: int) -> Tensor:
    """New tokens after the up to `reach` that the cache holds before them; the cache is extended: (B, T) -> (B, S)."""
    if cache is None:
        return ids_BT
    ids_BS = cache.remember(ids_BT, reach)
    cache.advance(ids_BT.shape[1])
    return ids_BS


def own_init(model: nn.Module) -> None:
    """Every token equally likely, and states that neither fade nor grow.

    Embeddings and what enters a layer keep the scale of their input (uniform of Glorot and Bengio 2010); what goes from
    one moment to the next is orthogonal (Saxe et al. 2013, https://arxiv.org/abs/1312.6120), gate by gate; biases are
    zero, but those of an LSTM's forget gate one, so that it remembers until it has learned what to forget (Gers et al.
    2000; Jozefowicz et al. 2015, sect. 2.2); the head is normal with deviation 0.02.
    """
    for path, module in model.named_modules():
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.5)
        elif isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if path == "head":
                nn.init.normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.RNNBase):
            for name, parameter in module.named_parameters(recurse=False):
                _init_gates(name, parameter, module.hidden_size, forgets=module.mode == "LSTM")


def _init_gates(name: str, parameter: Tensor, width: int, forgets: bool) -> None:
    """One parameter of a recurrent layer: its gates lie one above the other, in an LSTM input, forget, cell, output."""
    gates = parameter.detach().split(width)
    for gate in gates:
        if name.startswith("weight_hh"):
            nn.init.orthogonal_(gate)
        elif name.startswith("weight_ih"):
            nn.init.uniform_(gate, -math.sqrt(6 / sum(gate.shape)), math.sqrt(6 / sum(gate.shape)))
        else:
            nn.init.zeros_(gate)
    if forgets and name.startswith("bias_ih"):
        nn.init.ones_(gates[1])
