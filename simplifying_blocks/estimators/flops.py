"""Floating-point operations of the forward pass, two per multiply-add.

Counted are the products with matrices of the blocks, the two T x T products of attention (in full, although half of a causal
one is masked), and the unembedding. Not counted: what is linear in d per token (norms, gains, activations, biases, positions,
the running mean C V), and alpha W0 + beta dW, which is made once a step. Training is three times the forward pass.
"""

from simplifying_blocks.recipe import Model, gains_of


def forward_flops(config: Model, vocabulary: int, T: int) -> dict[str, int]:
    """FLOP per token of a sequence of T: blocks (their matrices), attention (q k^T and A V), head, and their total."""
    config = config.resolved()
    layers = range(config.layers)
    parts = {
        "blocks": 2 * sum(matrix_entries(config, layer) for layer in layers),
        "attention": 2 * sum(2 * T * config.d for layer in layers if "beta" in gains_of(config, layer)),
        "head": 2 * config.d * vocabulary,
    }
    return parts | {"total": sum(parts.values())}


def matrix_entries(config: Model, layer: int) -> int:
    """Entries of the matrices that a token is multiplied with in a block of a resolved config."""
    gains, inner = gains_of(config, layer), config.mlp_ratio * config.d
    queries_keys = 2 * config.d if "beta" in gains else 0
    values_projections = config.d * sum(has_matrix(config, gains, part) for part in "VP")
    mlp = inner + (inner // 2 if config.mlp == "glu" else inner)
    return config.d * (queries_keys + values_projections + mlp)


def has_matrix(config: Model, gains: dict, part: str) -> bool:
    """Whether V or P is more than a multiple of the identity."""
    return f"beta_{part}" in gains or f"alpha_{part}" in gains and getattr(config, f"init_{part}") != "identity"
