"""Settings of the model, and the named blocks as settings."""

from dataclasses import dataclass, replace
from typing import Annotated, Literal

from common.limits import Amount, Distinct, Number, Positive, Range, Share
from simplifying_blocks.norms import Kind
from simplifying_blocks.projections import Start

OFF = "off"
Coefficient = Number | Literal["off"]
Site = Literal["first", "pre_qk", "pre_v", "pre_mlp", "entry", "middle"]
GainName = Literal[
    "alpha_SA", "beta_SA", "alpha_FF", "beta_FF", "alpha", "beta", "gamma", "alpha_V", "beta_V", "alpha_P", "beta_P"
]
BlockName = Literal[
    "preln", "postln", "parallel", "naive", "vskipinit", "skipless", "sas", "sas_p", "sas_p_nonorm", "op"
]

PRELN = {
    "parallel": False,
    "norms": ["pre_qk", "pre_v", "pre_mlp"],
    "qk_norm": "none",
    "alpha_SA": 1.0,
    "beta_SA": 1.0,
    "alpha_FF": 1.0,
    "beta_FF": 1.0,
    "alpha": OFF,
    "beta": 1.0,
    "gamma": OFF,
    "init_V": "normal",
    "init_P": "normal",
    "alpha_V": OFF,
    "beta_V": 1.0,
    "beta_V_first": "same",
    "alpha_P": OFF,
    "beta_P": 1.0,
    "beta_P_last": "same",
    "std_Q": 0.02,
    "trainable": [],
}
SHAPED = {
    "alpha_SA": OFF,
    "alpha": 1.0,
    "beta": 1.0,
    "gamma": 1.0,
    "std_Q": 0.0,
    "init_V": "orthogonal",
    "init_P": "orthogonal",
    "beta_FF": 0.1,
    "trainable": ["beta_SA", "alpha_FF", "beta_FF", "alpha", "beta", "gamma"],
}
REPARAMETERISED = {
    "init_V": "identity",
    "init_P": "identity",
    "alpha_V": 1.0,
    "beta_V": 0.2,
    "alpha_P": 1.0,
    "beta_P": 0.2,
    "trainable": [*SHAPED["trainable"], "alpha_V", "beta_V", "alpha_P", "beta_P"],
}
SAS = SHAPED | REPARAMETERISED | {"beta_V": OFF, "beta_V_first": 1.0, "beta_P": OFF}
SAS_P = SAS | {"parallel": True, "alpha_FF": OFF}
BLOCKS = {
    "preln": {},
    "postln": {"norms": ["entry", "middle"]},
    "parallel": {"parallel": True},
    "naive": {"alpha_SA": OFF},
    "vskipinit": SHAPED,
    "skipless": SHAPED | REPARAMETERISED,
    "sas": SAS,
    "sas_p": SAS_P,
    "sas_p_nonorm": SAS_P | {"norms": ["first"]},
    "op": {"norms": [], "qk_norm": "rms", "beta_SA": 0.3, "beta_FF": 0.3},
}
"""What a block has that Pre-LN has not."""


def preset(block: BlockName, layers: int) -> dict:
    """Every setting of a named block. Branch gains below 1 are meant for 18 blocks (op: 6) and go as 1 / sqrt(L)."""
    settings, tuned = PRELN | BLOCKS[block], 6 if block == "op" else 18
    for name in ("beta_SA", "beta_FF"):
        if settings[name] < 1:
            settings[name] *= (tuned / layers) ** 0.5
    return settings


@dataclass
class Model:
    """Sizes, block and embeddings. What is null is as the named block has it."""

    block: BlockName = "preln"
    """Named block; equations in blocks.py."""
    layers: Annotated[int, Range(1, 1000)] = 18
    """Blocks L."""
    d: Annotated[int, Range(1, 10**5)] = 768
    """Width."""
    heads: Annotated[int, Range(1, 10**4)] = 12
    """Attention heads H; they divide d."""
    mlp_ratio: Annotated[int, Range(1, 100)] = 4
    """d_ff / d; a GLU splits d_ff into gate and value."""
    mlp: Literal["ff", "glu"] = "ff"
    """Two linear maps, or a gated linear unit (the BERT of the first paper)."""
    act: Literal["relu", "gelu", "gelu_tanh"] = "relu"
    """Activation of the MLP, or of its gate."""
    slope: Share = 0.0
    """Slope of relu below 0 (Fig 25: 0, 0.2, 0.8)."""
    alpha_MLP: Number = 1.0
    """Scale of the MLP's input; matters for activations that are not 1-homogeneous."""
    biases: Literal["none", "qk", "all"] = "qk"
    """Linear maps of the blocks with a bias: none, queries and keys, or all."""
    objective: Literal["clm", "mlm"] = "clm"
    """Causal language model, or masked (attention looks both ways, C is 1/T everywhere)."""

    parallel: bool | None = None
    """MLP and attention read the same input."""
    norms: Annotated[list[Site], Distinct()] | None = None
    """Sites with a norm. pre_*: before queries and keys, values, MLP (one norm where they read the same). entry, middle: of the
    stream itself (Post-LN). first: a LayerNorm before the first block's branches, where it
    has no pre_qk or pre_v."""
    norm: Kind = "rms"
    """LayerNorm, RMSNorm, or SRMSNorm (no weights)."""
    norm_eps: Positive = 1e-8
    """Epsilon of all but the final norm, inside the root."""
    qk_norm: Literal["none", "layer", "rms", "srms"] | None = None
    """Norm of queries and keys over d_k; one weight vector for all heads."""
    logit_cap: Positive | None = None
    """Attention scores s become cap * tanh(s / cap). The authors: 30."""

    alpha_SA: Coefficient | None = None
    """Skip of the attention sub-block; off: none."""
    beta_SA: Number | None = None
    """Attention branch."""
    alpha_FF: Coefficient | None = None
    """Skip of the MLP sub-block; of the whole block where it is parallel."""
    beta_FF: Number | None = None
    """MLP branch."""
    layer_scale: bool = False
    """Trainable beta_SA and beta_FF have an entry per channel (LayerScale)."""
    alpha: Coefficient | None = None
    """Identity in the attention matrix, per head."""
    beta: Coefficient | None = None
    """Softmax in the attention matrix, per head."""
    gamma: Coefficient | None = None
    """Uniform attention, subtracted, per head."""
    alpha_V: Coefficient | None = None
    """Weight of the fixed base of the values; off: a plain matrix."""
    beta_V: Coefficient | None = None
    """Weight of the trained part of the values; off: none."""
    beta_V_first: Coefficient | Literal["same"] | None = None
    """beta_V of the first block."""
    alpha_P: Coefficient | None = None
    """Weight of the fixed base of the projection; off: a plain matrix."""
    beta_P: Coefficient | None = None
    """Weight of the trained part of the projection; off: none."""
    beta_P_last: Coefficient | Literal["same"] | None = None
    """beta_P of the last block."""
    trainable: Annotated[list[GainName], Distinct()] | None = None
    """Gains that are trained, where there are any: alpha_V and alpha_P only beside a trained part."""

    init_V: Start | None = None
    """Base, or start, of the values; normal is N(0, 1/d) as a base and N(0, std^2) as a start."""
    init_P: Start | None = None
    """Base, or start, of the projection."""
    tie: Literal["none", "last_block", "all_blocks"] = "none"
    """Orthogonal or normal bases that undo each other: P_l = V_l^T, or the last P undoes all before it (Fig 15)."""
    std: Amount = 0.02
    """Standard deviation of normal starts."""
    std_Q: Amount | None = None
    """That of the query matrix."""
    std_K: Amount | None = None
    """That of the key matrix; null: std."""
    std_VP: Amount | None = None
    """That of plain value and projection matrices; null: std."""
    std_out: Amount | None = None
    """That of the MLP's output matrix; null: std."""

    positions: Literal["learned", "sinusoidal", "alibi", "rope", "none"] = "learned"
    """Positions: tables added to the embedding, biases of the scores, or rotations of queries and keys."""
    tied: bool = True
    """The unembedding is the embedding."""
    embed_scale: Number = 1.0
    """Factor of the token embedding; the second paper: 50, so that its mean square is 1."""
    final_norm: Literal["none", "layer", "rms", "srms"] = "layer"
    """Norm before the unembedding, epsilon 1e-5."""

    def __post_init__(self):
        if any(getattr(self, name) is None for name in PRELN):
            self.resolved()
        else:
            refuse(self)

    def resolved(self) -> "Model":
        """The same, with the block's own settings in place of null."""
        own = preset(self.block, self.layers)
        return replace(self, **{name: value for name, value in own.items() if getattr(self, name) is None})

    def std_of(self, part: str) -> float:
        """Standard deviation of Q, K, VP or out."""
        own = getattr(self, f"std_{part}")
        return self.std if own is None else own


def refuse(model: Model) -> None:
    """ValueError for what no single field shows. model is resolved."""
    width = model.d // model.heads
    wrong = {
        f"model.heads {model.heads} does not divide model.d {model.d}": model.d % model.heads,
        f"model.positions rope turns pairs: d / heads is {width}, not even": model.positions == "rope" and width % 2,
        f"model.positions sinusoidal needs an even d, not {model.d}": model.positions == "sinusoidal" and model.d % 2,
        "model.mlp glu needs an even d * mlp_ratio": model.mlp == "glu" and model.d * model.mlp_ratio % 2,
        f"model.qk_norm {model.qk_norm} cannot normalise zero queries: set model.std_Q above 0, such as 0.02": (
            model.qk_norm != "none" and model.std_Q == 0
        ),
        "model.alpha, beta and gamma are all off: attention has no term": (
            not {"alpha", "beta", "gamma"} & gains_of(model, 0).keys()
        ),
    }
    for branch in sorted({"beta_SA", "beta_FF"} - gains_of(model, 0).keys()):
        wrong[f"model.{branch} is fixed at 0: the branch is never used"] = True
    wrong["model.norms middle has no place in a parallel block"] = model.parallel and "middle" in model.norms
    for part, ends in (("V", model.beta_V_first), ("P", model.beta_P_last)):
        alpha, betas = getattr(model, f"alpha_{part}"), (getattr(model, f"beta_{part}"), ends)
        stuck = alpha != OFF and 0 in betas and f"beta_{part}" in model.trainable
        plain = f"alpha_{part}" not in gains_of(model, 0)
        wrong |= {
            f"model.alpha_{part} and beta_{part} are both off or 0: there is no matrix": plain and absent(model, part),
            f"model.beta_{part} 0 never leaves 0: it and its matrix have no gradient; take a small number, or off": stuck,
            f"model.tie needs fixed bases: set model.alpha_{part}": model.tie != "none" and plain,
        }
    wrong["model.tie needs the same init_V and init_P"] = model.tie != "none" and model.init_V != model.init_P
    if told := next((text for text, is_wrong in wrong.items() if is_wrong), None):
        raise ValueError(told)


def absent(model: Model, part: str) -> bool:
    """Whether some block has no trained part of V or P."""
    return any(f"beta_{part}" not in gains_of(model, layer) for layer in {0, model.layers - 1, model.layers // 2})


def gains_of(model: Model, layer: int) -> dict[str, tuple[float, bool]]:
    """name -> (value at the start, trained?) of the gains that block `layer` has: neither those off nor those fixed at 0."""
    values = {name: getattr(model, name) for name in GainName.__args__}
    if layer == 0 and model.beta_V_first != "same":
        values["beta_V"] = model.beta_V_first
    if layer == model.layers - 1 and model.beta_P_last != "same":
        values["beta_P"] = model.beta_P_last
    if model.parallel:
        values["alpha_SA"] = OFF
    trained = {name for name in model.trainable if values[name] != OFF}
    present = {name for name, value in values.items() if value != OFF and (value != 0 or name in trained)}
    trained -= {f"alpha_{part}" for part in "VP" if f"beta_{part}" not in present}
    return {n: (float(values[n]), n in trained) for n in values if n in present and (values[n] != 0 or n in trained)}
