"""Positions of the normalisation: independent switches, and the paper's names for some combinations (section 2.1, Table 1)."""

from dataclasses import dataclass, fields, replace

SWITCHES = ("q", "k", "v", "mlp")
"""Switches that replicas of one stack may set differently; the others change the shape of the computation."""

ALIASES = {
    "off": "",
    "attn-pre": "qk+v",
    "pre": "qk+v+mlp",
    "mlp-pre": "mlp",
    "attn-pre-qk": "qk",
    "attn-pre-q": "q",
    "attn-pre-k": "k",
    "attn-pre-v": "v",
    "pre-v": "v+mlp",
    "pre-qk": "qk+mlp",
    "mlp-inpnorm": "unit",
    "peri": "qk+v+mlp+peri",
}

PAPER_NAMES = {
    "off": "No LN",
    "attn-pre": "A*",
    "pre": "M+A*",
    "mlp-pre": "M",
    "attn-pre-qk": "A^qk",
    "attn-pre-v": "A^v",
    "pre-v": "M+A^v",
    "pre-qk": "M+A^qk",
}


@dataclass(frozen=True)
class Placement:
    """Switches of one model, for a block with input x, y = x + Attn(x) and z = y + MLP(y)."""

    q: bool = False
    """LN1 on the input of the queries."""
    k: bool = False
    """LN1 on the input of the keys."""
    v: bool = False
    """LN1 on the input of the values."""
    mlp: bool = False
    """LN2 on the input of the MLP."""
    post: bool = False
    """y = LN1(x + Attn(x)), z = LN2(y + MLP(y))."""
    peri: bool = False
    """y = x + LN3(Attn), z = y + LN4(MLP)."""
    final: bool = False
    """A norm (epsilon 1e-5) before the unembedding, LayerNorm or RMSNorm as model.norm says."""
    final_center: bool = False
    """The same without gain and bias (`center_only` of the authors, which is a full normalisation)."""
    unit: bool = False
    """MLP input y / ||y||, the authors' scale-removing probe, trained."""
    qk_norm: bool = False
    """Queries and keys of each head divided by their root mean square, after the projection."""

    @classmethod
    def parse(cls, text: str) -> "Placement":
        """From aliases and switches joined by +: "mlp-pre", "qk+mlp", "off+final"; ValueError for an unknown part."""
        known = {f.name.replace("_", "-"): [f.name] for f in fields(cls)} | {"qk": ["q", "k"], "": []}
        chosen = []
        for part in text.split("+"):
            for name in ALIASES.get(part, part).split("+"):
                if name not in known:
                    expected = ", ".join((*ALIASES, *known)).rstrip(", ")
                    raise ValueError(f"found placement {part!r} in {text!r}, expected some of {expected}, joined by +")
                chosen += known[name]
        placement = cls(**dict.fromkeys(chosen, True))
        if placement.post and (placement.q or placement.k or placement.v or placement.mlp or placement.peri):
            raise ValueError(
                f"found placement {text!r}, expected post by itself (or with final, final-center, qk-norm)"
            )
        if placement.final and placement.final_center:
            raise ValueError(f"found placement {text!r}, expected final or final-center, not both")
        return placement

    @property
    def switches(self) -> tuple[bool, ...]:
        """Values of SWITCHES."""
        return tuple(getattr(self, name) for name in SWITCHES)

    @property
    def structure(self) -> "Placement":
        """This placement without the switches that replicas of one stack may set differently."""
        return replace(self, **dict.fromkeys(SWITCHES, False))

    @property
    def norms(self) -> set[str]:
        """Names of the LayerNorms of a block that this placement uses."""
        used = self.q or self.k or self.v or self.post, self.mlp or self.post, self.peri, self.peri
        return {f"ln{number}" for number, there in enumerate(used, 1) if there}
