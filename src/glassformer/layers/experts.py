"""Mixture of experts: many feed-forward networks; each token visits a few.

    x ──► router ──► the k best of E experts, and how much each counts
    x ──► expert 3 ── * 0.7 ─┐
      └─► expert 1 ── * 0.3 ─┴► +

More parameters for the same arithmetic a token. Shazeer et al. 2017, https://arxiv.org/abs/1701.06538; the router as
in Mixtral (Jiang et al. 2024, https://arxiv.org/abs/2401.04088): a softmax over the k best alone; or over all, of which
the k best are kept as they are, so that they sum to less than 1 (`shares_of`). No token is dropped.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from glassformer.taps import Tap


class Experts(nn.Module):
    """(B, T, C) -> (B, T, C) through `active` of the experts that `make` builds.

    After a forward pass in training `balance` holds Switch's balance loss (Fedus et al. 2021,
    https://arxiv.org/abs/2101.03961, eq. 4): E times the sum over experts of (share of visits) * (mean router
    probability). It is 1 when all are visited alike and E when one takes everything. The tap `load` has the shares
    of visits, (E,), which sum to 1.

    Args:
        shares_of: what the softmax of the shares goes over, the "active" experts or "all". router_bias: whether the
            router adds a bias to its scores.
    """

    def __init__(
        self,
        *,
        n_embd: int,
        n_expert: int,
        active: int,
        make: Callable[[], nn.Module],
        shares_of: str = "active",
        router_bias: bool = False,
    ):
        super().__init__()
        self.active, self.shares_of_all = active, shares_of == "all"
        self.router = nn.Linear(n_embd, n_expert, bias=router_bias)
        self.experts = nn.ModuleList(make() for _ in range(n_expert))
        self.balance: Tensor | None = None
        self.tap_router, self.tap_load, self.tap_output = Tap("router"), Tap("load"), Tap("output")

    def forward(self, x_BTC: Tensor) -> Tensor:
        B, T, C = x_BTC.shape
        x_NC = x_BTC.reshape(B * T, C)
        scores_NE = self.tap_router(self.router(x_NC).float())
        best_NA = scores_NE.topk(self.active, dim=-1)
        if self.shares_of_all:
            shares_NA = scores_NE.softmax(dim=-1).gather(-1, best_NA.indices).to(x_NC.dtype)
        else:
            shares_NA = best_NA.values.softmax(dim=-1).to(x_NC.dtype)
        visits_E = best_NA.indices.flatten().bincount(minlength=len(self.experts)).float()
        visits_E = self.tap_load(visits_E / visits_E.sum())
        if self.training:
            self.balance = len(self.experts) * (visits_E * scores_NE.softmax(dim=-1).mean(dim=0)).sum()
        y_NC = torch.zeros_like(x_NC)
        for e, expert in enumerate(self.experts):
            token, place = (best_NA.indices == e).nonzero(as_tuple=True)
            scaled_NC = expert(x_NC[token].unsqueeze(0)).squeeze(0) * shares_NA[token, place].unsqueeze(-1)
            y_NC = y_NC.index_add(0, token, scaled_NC.to(y_NC.dtype))
        return self.tap_output(y_NC.view(B, T, C))


def balance_loss(model: nn.Module) -> Tensor | None:
    """The mean of the balance losses of a model's mixtures in the last forward pass; None if it has none."""
    found = [module.balance for module in model.modules() if isinstance(module, Experts) and module.balance is not None]
    return torch.stack(found).mean() if found else None
