"""ModelConfig: everything that decides a decoder's shape, checked once, at the door."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from glassformer.errors import UsageError, did_you_mean
from glassformer.layers import ACTIVATIONS, NORMS, POSITIONS

# Two ways to fill in the fields that nobody sets. A family is a preset and nothing more: once the fields are filled,
# only the fields decide.
FAMILIES: dict[str, dict[str, Any]] = {
    # GPT-2 (Radford et al. 2019)
    "classic": {
        "positions": "learned",
        "norm": "layernorm",
        "norm_eps": 1e-5,
        "feedforward": "plain",
        "activation": "gelu_new",
        "bias": True,
        "qk_norm": False,
        "tied_head": True,
    },
    # Qwen3 (2025); without qk_norm it is a Llama (Touvron et al. 2023, https://arxiv.org/abs/2302.13971)
    "modern": {
        "positions": "rotary",
        "norm": "rmsnorm",
        "norm_eps": 1e-6,
        "feedforward": "gated",
        "activation": "silu",
        "bias": False,
        "qk_norm": True,
        "tied_head": True,
    },
}


class ModelConfig(BaseModel):
    """The shape of a decoder. Names are the lecture's; sizes are counts.

    `n_kv_head`, `head_width` and `n_hidden` follow from the others when left out: as many key-value heads as heads,
    n_embd / n_head, and 4 n_embd (plain) or 8/3 n_embd rounded up to a multiple of 32 (gated: three matrices instead
    of two, so the parameters are about the same). With `n_gram` above 1 the embedding also tells what the last n_gram
    tokens were: each by itself, and together in tables of up to `n_gram_rows` rows (`glassformer.modalities.NGrams`).

    Raises:
        UsageError: from `ModelConfig.make` when a field is unknown or does not fit the others.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    family: Literal["classic", "modern"] = "classic"
    vocab_size: int = Field(ge=1, le=10_000_000)
    block_size: int = Field(ge=1, le=10_000_000)
    n_layer: int = Field(ge=1, le=1000)
    n_head: int = Field(ge=1, le=1000)
    n_embd: int = Field(ge=1, le=1_000_000)
    n_kv_head: int = Field(ge=1)
    head_width: int = Field(ge=1)
    n_hidden: int = Field(ge=1)
    positions: str
    rotary_base: float = Field(default=10_000.0, gt=1)
    norm: str
    norm_eps: float = Field(gt=0)
    feedforward: Literal["plain", "gated"]
    activation: str
    bias: bool
    qk_norm: bool
    tied_head: bool
    n_gram: int = Field(default=1, ge=1, le=8)
    n_gram_rows: int = Field(default=0, ge=0, le=1_000_000_000)

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, given: Any) -> Any:
        if not isinstance(given, dict) or given.get("family", "classic") not in FAMILIES:
            return given
        fields = {**FAMILIES[given.get("family", "classic")], **given}
        n_embd, n_head = fields.get("n_embd"), fields.get("n_head")
        if isinstance(n_embd, int) and isinstance(n_head, int) and n_head > 0:
            if "head_width" not in fields:
                if 0 < n_embd <= 1_000_000 and n_embd % n_head:
                    raise UsageError(_not_divisible(n_embd, n_head))
                fields["head_width"] = n_embd // n_head
            fields.setdefault("n_kv_head", n_head)
            hidden = 4 * n_embd if fields["feedforward"] == "plain" else -(-8 * n_embd // (3 * 32)) * 32
            fields.setdefault("n_hidden", hidden)
        return fields

    @model_validator(mode="after")
    def _check(self) -> ModelConfig:
        for field, known in (("positions", POSITIONS), ("norm", NORMS), ("activation", ACTIVATIONS)):
            if (value := getattr(self, field)) not in known:
                raise UsageError(f"{field}={value!r} is unknown; {did_you_mean(value, known)}")
        if self.n_head % self.n_kv_head:
            raise UsageError(
                f"n_head={self.n_head} is not divisible by n_kv_head={self.n_kv_head}: each key-value head serves an "
                f"equal group of heads; try n_kv_head={_nearest_divisor(self.n_head, self.n_kv_head)}"
            )
        if self.positions == "rotary" and self.head_width % 2:
            derived = self.head_width * self.n_head == self.n_embd
            even = self.head_width + 1
            raise UsageError(
                f"head_width={self.head_width} is odd; rotary positions turn channels in pairs: "
                f"try {f'n_embd={self.n_head * even}' if derived else f'head_width={even}'}"
            )
        return self

    @classmethod
    def make(cls, **fields: Any) -> ModelConfig:
        """Build a configuration; every mistake is one `UsageError` of one line."""
        try:
            return cls(**fields)
        except ValidationError as error:
            raise UsageError(first_mistake(error, cls, prefix="model.")) from None

    def parameter_count(self) -> int:
        """Parameters of the decoder with these fields, counted without building it (a tied head counts once)."""
        C, D, H, K, F = self.n_embd, self.head_width, self.n_head, self.n_kv_head, self.n_hidden
        bias = int(self.bias)
        norm = C * (1 + (bias if self.norm == "layernorm" else 0))
        attention = C * (H + 2 * K) * D + H * D * C + bias * ((H + 2 * K) * D + C) + (2 * D if self.qk_norm else 0)
        ups = 2 if self.feedforward == "gated" else 1
        feedforward = (ups + 1) * C * F + bias * (ups * F + C)
        embedding = self.vocab_size * C * (1 if self.tied_head else 2)
        back = (self.n_gram - 1) * (self.vocab_size + 1)
        joint = sum(min(self.n_gram_rows, (self.vocab_size + 1) ** n) for n in range(2, self.n_gram + 1))
        embedding += C * (back + joint)
        positions = self.block_size * C if self.positions == "learned" else 0
        return embedding + positions + self.n_layer * (2 * norm + attention + feedforward) + norm


def first_mistake(error: ValidationError, model: type[BaseModel], prefix: str = "") -> str:
    """The first of pydantic's complaints as one line in our own words."""
    first = error.errors()[0]
    where = prefix + ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"unknown key {where}; {did_you_mean(str(first['loc'][-1]), model.model_fields)}"
    if first["type"] == "missing":
        return f"{where} is missing; give it a value"
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, UsageError):
        return str(cause)
    return f"{where}={first['input']!r} {_rule(first, where)}"


def _rule(mistake: Any, where: str) -> str:
    """What the rule is and what to do, for one of pydantic's complaints."""
    kind, facts = mistake["type"], mistake.get("ctx", {})
    for name in {"ge", "gt", "le", "lt"} & facts.keys():
        limit = facts[name]
        limit = int(limit) if float(limit).is_integer() else limit  # 1, not 1.0
        size = "small" if name[0] == "g" else "large"
        rule = {
            "ge": f"{limit} or more",
            "gt": f"more than {limit}",
            "le": f"{limit} or less",
            "lt": f"less than {limit}",
        }
        return f"is too {size}; use {rule[name]}"
    if kind == "literal_error":
        return f"is unknown; use {facts['expected']}".replace("'", "")
    if kind == "finite_number":
        return "is not a finite number; give one"
    for start, told in (
        ("int", f"is not a whole number; give one, for example {where}=4"),
        ("float", f"is not a number; give one, for example {where}=0.1"),
        ("bool", f"is neither yes nor no; use {where}=true or {where}=false"),
        ("string_type", "is not a text; put it in quotes"),
        ("string_too_short", "is empty; give it a value, or leave it out"),
        ("model", f"is one value where a table is needed: a line [{where}], and below it a line for each key"),
    ):
        if kind.startswith(start):
            return told
    return f"does not fit: {mistake['msg'][0].lower()}{mistake['msg'][1:]}"


def _not_divisible(n_embd: int, n_head: int) -> str:
    smaller = n_embd // n_head * n_head or n_head
    fewer = _nearest_divisor(n_embd, n_head)
    return f"n_embd={n_embd} is not divisible by n_head={n_head}; try n_embd={smaller} or n_head={fewer}"


def _nearest_divisor(n: int, to: int) -> int:
    """The divisor of n nearest to `to`, the larger one of two; 1 is one, so the search ends."""
    to = min(to, n)
    return next(d for step in range(to) for d in (to + step, to - step) if n % d == 0)
