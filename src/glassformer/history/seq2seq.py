"""From a sentence to a sentence with recurrent networks: through one vector, or with all that was read at hand.

    seq2seq                    I ─► am ─► here ─► [vector] ─► je ─► suis ─► là

    seq2seq-attention          I ◄─► am ◄─► here
                               h_1   h_2    h_3          all are kept
                                 ╲    │    ╱
                                  weights ─► c_i ─► je   and each written word weighs them again

The reader is bidirectional, so h_j knows of its whole sentence and most of what stands near j. The writer is one and
the same in both models: its first state is tanh(W summary), and to each step comes the token before and a context c_i
(Cho et al. 2014, https://arxiv.org/abs/1406.1078, eq. 7). Through one vector c_i is always the summary, the last states
of the reader. With attention it is looked up (Bahdanau et al. 2014, https://arxiv.org/abs/1409.0473, appendix A.2). So
what differs between the two is what attention does. A sentence of any length must fit into the one vector: this is the
bottleneck (Sutskever et al. 2014, https://arxiv.org/abs/1409.3215, read the source backwards to ease it).

Left out: the paper's maxout layer before the output; here it is tanh of state and context (Luong et al. 2015,
https://arxiv.org/abs/1508.04025, eq. 5).

B batch, S source length, T target length, C channels of the memory (2 H), H width of a state, V vocabulary.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from glassformer.errors import UsageError
from glassformer.history.additive import AdditiveAttention
from glassformer.history.base import HistoryModel
from glassformer.history.cache import RecurrentCache
from glassformer.history.config import Seq2SeqConfig
from glassformer.history.recurrent import CELLS, run_cell
from glassformer.layers import Memory
from glassformer.models.counts import FlopsPerToken
from glassformer.taps import Tap


class Seq2Seq(HistoryModel):
    """Source ids (B, S) and the target so far (B, T) -> logits (B, T, V), where logits[:, t] are about target t + 1."""

    answers = frozenset({"target"})
    cache_type = RecurrentCache

    def __init__(self, config: Seq2SeqConfig):
        super().__init__(config)
        C, H, L = config.n_embd, config.n_hidden, config.n_layer
        self.embedding = nn.Embedding(config.vocab_size, C)
        self.source_embedding = (
            self.embedding if config.source_vocab_size is None else nn.Embedding(config.source_vocab_size, C)
        )
        self.encoder = CELLS[config.cell](C, H, L, batch_first=True, bidirectional=True)
        self.attention = AdditiveAttention(H, 2 * H, H) if config.kind == "seq2seq-attention" else None
        states = 2 if config.cell == "lstm" else 1
        self.first_state = nn.Linear(2 * H, states * L * H)
        self.decoder = CELLS[config.cell](C + 2 * H, H, L, batch_first=True)
        self.join = nn.Linear(H + 2 * H, H)
        self.head = nn.Linear(H, config.vocab_size)
        self.tap_hidden = Tap("hidden")
        self.init_weights()

    def forward(self, source_BS: Tensor, target_BT: Tensor, source_lengths_B: Tensor | None = None) -> Tensor:
        """-> (B, T, V). `source_lengths`: how many tokens of each source sentence count (all, when left out)."""
        return self.decode(target_BT, self.encode(source_BS, source_lengths_B))

    def encode(self, source_BS: Tensor, lengths_B: Tensor | None = None) -> Memory:
        """Read the source: (B, S) -> its memory, both directions side by side, (B, S, C); through one vector
        (B, 1, C), of length 1.

        Raises:
            UsageError: a source sentence is empty, or longer than what was given.
        """
        B, S = source_BS.shape
        lengths_B = torch.full((B,), S, device=source_BS.device) if lengths_B is None else lengths_B.to(torch.int64)
        shortest, longest = (int(lengths_B.min()), int(lengths_B.max())) if B else (1, S)
        if shortest < 1:
            raise UsageError(
                f"source sentence {int(lengths_B.argmin())} is empty; give it one token or more, or leave it out"
            )
        if longest > S:
            raise UsageError(
                f"a source sentence has {longest} tokens by its length and {S} are given; mend the lengths"
            )
        x_BSC = F.dropout(self.source_embedding(source_BS), self.dropout, self.training)
        packed = pack_padded_sequence(x_BSC, lengths_B.cpu(), batch_first=True, enforce_sorted=False)
        vectors_BSC, _ = pad_packed_sequence(self.encoder(packed)[0], batch_first=True, total_length=S)
        memory = Memory(vectors_BSC, lengths_B)
        if self.attention is None:
            return Memory(_summary(memory)[:, None], torch.ones_like(lengths_B))
        return memory

    def decode(self, target_BT: Tensor, memory: Memory, *, cache: RecurrentCache | None = None) -> Tensor:
        """Write: target (B, T), beginning with start_token, and a memory -> logits (B, T, V). With a cache, `target`
        are the tokens after those it holds, and it is extended."""
        return self.logits(self._write(target_BT, memory, cache))

    def hidden(self, source_BS: Tensor, target_BT: Tensor, source_lengths_B: Tensor | None = None) -> Tensor:
        """Everything but the head: the vectors that it reads, (B, T, H)."""
        return self._write(target_BT, self.encode(source_BS, source_lengths_B), None)

    def logits(self, hidden_BTH: Tensor) -> Tensor:
        """Ask for the next target token: (B, T, H) -> (B, T, V)."""
        return self.tap_logits(self.head(hidden_BTH))

    def flops_per_token(self, S: int | None = None) -> FlopsPerToken:
        """As of the other models, for one target token and one source token together; with attention also S scores
        and a sum of S vectors (block_size when left out)."""
        forward = super().flops_per_token().forward
        if self.attention is not None:
            forward += (
                2 * (self.config.block_size if S is None else S) * (self.config.n_hidden + 2 * self.config.n_hidden)
            )
            forward -= 2 * self.config.n_hidden  # v, which is counted with the scores
        return FlopsPerToken(forward, 3 * forward)

    def _write(self, target_BT: Tensor, memory: Memory, cache: RecurrentCache | None) -> Tensor:
        """What the head reads: target (B, T) and a memory -> (B, T, H)."""
        T = target_BT.shape[1]
        state = None if cache is None else cache.state
        unread_BR = target_BT if cache is None else cache.unread(target_BT)  # R > T after a rewind
        x_BRC = F.dropout(self.embedding(unread_BR), self.dropout, self.training)
        summary_BC = _summary(memory)
        if state is None:
            state = self._first_state(summary_BC)
        if self.attention is None:
            context_BRC = summary_BC[:, None].expand(-1, x_BRC.shape[1], -1)
            h_BRH, state = run_cell(self.decoder, torch.cat((x_BRC, context_BRC), dim=-1), state)
        else:
            h_BRH, context_BRC, state = self._search(self.attention, x_BRC, memory, state)
        if cache is not None:
            cache.keep(state, T)
        joined_BRH = torch.tanh(self.join(torch.cat((h_BRH, context_BRC), dim=-1)))
        return F.dropout(self.tap_hidden(joined_BRH[:, -T:]), self.dropout, self.training)

    def _first_state(self, summary_BC: Tensor) -> tuple[Tensor, ...]:
        """The writer's state before the first token, from the summary: a tuple of (L, B, H)."""
        L, H = self.config.n_layer, self.config.n_hidden
        parts = self.first_state(summary_BC).tanh().unflatten(-1, (-1, L, H))  # (B, 1 or 2, L, H)
        return tuple(part.transpose(0, 1).contiguous() for part in parts.unbind(dim=1))

    def _search(
        self, attention: AdditiveAttention, x_BTC: Tensor, memory: Memory, state: tuple[Tensor, ...]
    ) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """Token after token: where to look depends on the state, and the state on what was seen there."""
        keys_BSA, lengths_B = attention.keys(memory.vectors_BSC), _lengths(memory)
        written, looked_up = [], []
        for x_B1C in x_BTC.split(1, dim=1):
            query_B1H = state[0][-1].unsqueeze(1)  # h of the last layer
            context_B1C = attention(query_B1H, keys_BSA, memory.vectors_BSC, lengths_B)
            h_B1H, state = run_cell(self.decoder, torch.cat((x_B1C, context_B1C), dim=-1), state)
            written.append(h_B1H)
            looked_up.append(context_B1C)
        return torch.cat(written, dim=1), torch.cat(looked_up, dim=1), state


def _summary(memory: Memory) -> Tensor:
    """The last state of each direction: forward after the last token, backward after the first. (B, 2 H). Of a memory
    of one vector it is that vector."""
    forward_BSH, backward_BSH = memory.vectors_BSC.chunk(2, dim=-1)
    B = len(forward_BSH)
    last_B = _lengths(memory) - 1
    return torch.cat((forward_BSH[torch.arange(B, device=last_B.device), last_B], backward_BSH[:, 0]), dim=-1)


def _lengths(memory: Memory) -> Tensor:
    """How many vectors of each row count: all, where the memory has no lengths."""
    vectors_BSC, lengths_B = memory
    if lengths_B is not None:
        return lengths_B
    return torch.full((len(vectors_BSC),), vectors_BSC.shape[1], device=vectors_BSC.device)
