"""The tangent kernel from layer Grams: equal to per-sample gradients, and what must hold of any such kernel."""

import pytest
import torch

from layernorm_grok.estimators import ntk, ntk_gram
from layernorm_grok.model import Model, Transformer
from layernorm_grok.placement import Placement

P, C = 7, 8
ROWS = torch.randperm(P**2, generator=torch.Generator().manual_seed(1))[:30]

CASES = [
    # placement, layers, other options
    ("off", 1, {}),
    ("pre", 1, {}),
    ("attn-pre", 1, {"act": "gelu"}),
    ("mlp-pre", 1, {"norm": "rms"}),
    ("pre-v", 1, {"mlp": "glu", "unembed": "tied"}),
    ("attn-pre-qk+final", 1, {"unembed": "tied"}),
    ("pre+final-center", 1, {"heads": 1}),
    ("post", 1, {}),
    ("peri+final", 1, {"norm": "rms", "mlp": "glu"}),
    ("mlp-inpnorm+qk-norm", 1, {}),
    ("off", 2, {"act": "gelu"}),
    ("pre", 3, {"act": "gelu"}),
    ("post+final", 2, {"unembed": "tied"}),
    ("peri+qk-norm", 3, {"norm": "rms"}),
    ("q+v+unit", 2, {"mlp": "glu"}),
]


def build(placement="pre", layers=1, norms=None, **options) -> Transformer:
    """A small model in float64 whose gains and biases are anything but 1 and 0."""
    options = {"d": 8, "heads": 2, "mlp_ratio": 2, "init": "default", **options}
    generator = torch.Generator().manual_seed(0)
    model = Transformer(Model(layers=layers, **options), P, Placement.parse(placement), generator, norms).double()
    for p in model.parameters():
        p.data += 0.2 * torch.randn(p.shape, dtype=p.dtype, generator=generator)
    return model


def apart(kernel, other) -> float:
    return float((kernel - other).norm() / other.norm())


def jacobian(model: Transformer, rows) -> torch.Tensor:
    """Gradient of every logit, row by row through the shortcut forward: (n, C, weights)."""
    params = list(model.parameters())
    logits = [model(row[None]).logits[0] for row in rows]
    grads = [[torch.autograd.grad(f, params, retain_graph=True, materialize_grads=True) for f in fs] for fs in logits]
    return torch.stack([torch.stack([torch.cat([g.flatten() for g in gs]) for gs in each]) for each in grads])


@pytest.mark.parametrize("kind", ["sum", "projected", "full"])
@pytest.mark.parametrize("placement, layers, options", CASES, ids=lambda v: str(v))
def test_equals_per_sample_gradients(placement, layers, options, kind):
    model, vectors = build(placement, layers, **options), ntk.vectors(kind, C, count=3)
    assert apart(ntk.gram(model, ROWS, vectors, 1.3), ntk.per_sample_gram(model, ROWS, vectors, 1.3)) < 1e-12


@pytest.mark.parametrize("placement, layers, options", [("pre", 1, {}), ("off", 2, {"unembed": "tied"})])
def test_equals_the_definition_by_backward_passes_through_the_model(placement, layers, options):
    model, rows = build(placement, layers, **options), ROWS[:8]
    J = jacobian(model, rows)
    total = J.sum(1)
    assert apart(ntk.gram(model, rows, ntk.vectors("full", C)), torch.einsum("icp,jcp->ij", J, J)) < 1e-12
    assert apart(ntk.gram(model, rows, ntk.vectors("sum", C)), total @ total.T) < 1e-12
    assert apart(ntk.per_sample_gram(model, rows, ntk.vectors("sum", C)), total @ total.T) < 1e-12


@pytest.mark.parametrize("block", [1, 7, 16])
def test_blocks_change_nothing(monkeypatch, block):
    model, vectors = build(layers=2, unembed="tied"), ntk.vectors("sum", C)
    whole = ntk.gram(model, ROWS, vectors)
    monkeypatch.setattr(ntk_gram, "BLOCK", block)
    assert apart(ntk.gram(model, ROWS, vectors), whole) < 1e-14


@pytest.mark.parametrize("placement, layers, options", [CASES[4], CASES[8], CASES[12]], ids=lambda v: str(v))
def test_parameters_add_up_one_by_one(placement, layers, options):
    model, vectors = build(placement, layers, **options), ntk.vectors("projected", C, count=2)
    names = {n for n, _ in model.named_parameters()}
    each = {n: ntk.gram(model, ROWS, vectors, names={n}) for n in names}
    for name in names:
        literal = ntk.per_sample_gram(model, ROWS, vectors, names={name})
        torch.testing.assert_close(each[name], literal, rtol=1e-10, atol=1e-12 * float(literal.norm()) + 1e-14)
    assert apart(sum(each.values()), ntk.gram(model, ROWS, vectors)) < 1e-12


def test_frozen_norms_leave_the_rest():
    model, vectors = build("pre+final"), ntk.vectors("sum", C)
    moving = {n for n, _ in model.named_parameters() if ".ln" not in n and not n.startswith("final_norm")}
    kernel = ntk.gram(model, ROWS, vectors, names=moving)
    assert apart(kernel, ntk.per_sample_gram(model, ROWS, vectors, names=moving)) < 1e-12
    assert apart(kernel, ntk.gram(model, ROWS, vectors)) > 1e-3


def test_norms_that_the_placement_leaves_unused_add_nothing():
    vectors = ntk.vectors("sum", C)
    plain, idle = build("off"), build("off", norms={"ln1", "ln2"})
    idle.load_state_dict(plain.state_dict(), strict=False)
    assert torch.equal(ntk.gram(plain, ROWS, vectors), ntk.gram(idle, ROWS, vectors))


@pytest.mark.parametrize("kind", ["sum", "projected", "full"])
def test_is_symmetric_and_positive_semidefinite(kind):
    kernel = ntk.gram(build("peri", 2), ROWS, ntk.vectors(kind, C, count=4))
    assert apart(kernel.T, kernel) < 1e-14
    values = torch.linalg.eigvalsh(kernel)
    assert values[0] > -1e-12 * values[-1]


def test_an_entry_depends_on_its_two_pairs_alone():
    model, vectors = build("pre", 2), ntk.vectors("projected", C, count=3)
    kernel = ntk.gram(model, ROWS, vectors)
    chosen = torch.tensor([17, 3, 3, 25])
    assert apart(ntk.gram(model, ROWS[chosen], vectors), kernel[chosen][:, chosen]) < 1e-12


def test_only_the_second_moment_of_the_vectors_counts():
    model, vectors = build(), ntk.vectors("projected", C, count=5)
    turn = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(3))).Q
    assert apart(ntk.gram(model, ROWS, turn @ vectors), ntk.gram(model, ROWS, vectors)) < 1e-12


def test_readout_scale_enters_squared():
    model, vectors = build(), ntk.vectors("sum", C)
    assert apart(ntk.gram(model, ROWS, vectors, 1.5), 2.25 * ntk.gram(model, ROWS, vectors)) < 1e-12


def test_all_projected_vectors_give_the_full_kernel_without_the_sum_of_logits():
    model = build("pre", 1)
    full, total = (ntk.gram(model, ROWS, ntk.vectors(kind, C)) for kind in ("full", "sum"))
    every = ntk.gram(model, ROWS, ntk.vectors("projected", C, count=C - 1))
    assert apart(every, full - total / C) < 1e-12


def test_few_projected_vectors_are_unbiased():
    """The mean of v v^T over 4000 seeds is I - 11^T/C, as far as 4000 seeds can tell."""
    each = torch.stack([ntk.vectors("projected", C, 2, seed) for seed in range(4000)])
    moments = torch.einsum("sbi,sbj->sij", each, each) / 2
    centering = torch.eye(C, dtype=torch.float64) - 1 / C
    error = moments.std(0) / 4000**0.5
    assert (moments.mean(0) - centering).abs().div(error).max() < 5


def test_projected_vectors_are_blind_to_the_sum_and_seeded():
    vectors = ntk.vectors("projected", 114)
    assert vectors.shape == (8, 114)
    assert vectors.sum(1).abs().max() < 1e-12
    torch.testing.assert_close(vectors @ vectors.T, 113 * torch.eye(8, dtype=torch.float64))
    assert torch.equal(vectors, ntk.vectors("projected", 114))
    assert not torch.equal(vectors, ntk.vectors("projected", 114, seed=1))


def test_single_precision_is_good_to_a_millionth():
    model, vectors = build("pre", 1, d=32, heads=4), ntk.vectors("sum", C)
    exact = ntk.gram(model, ROWS, vectors)
    single = ntk.gram(model.float(), ROWS, vectors)
    assert single.dtype == torch.float32
    assert apart(single.double(), exact) < 1e-6


def test_reads_a_frozen_model_without_changing_it():
    model, vectors = build("pre", 2), ntk.vectors("sum", C)
    expected = ntk.gram(model, ROWS, vectors)
    model.requires_grad_(False).eval()
    with torch.no_grad():
        assert torch.equal(ntk.gram(model, ROWS, vectors), expected)
    assert all(p.grad is None and not p.requires_grad for p in model.parameters())


def test_drift():
    start = ntk.gram(build(), ROWS, ntk.vectors("sum", C))
    assert ntk.drift(start, start) == 0
    assert ntk.drift(3 * start, start) == pytest.approx(2)
    assert ntk.drift(start + torch.eye(30), start) == pytest.approx(30**0.5 / float(start.norm()))


def test_wrong_arguments():
    model, vectors = build(), ntk.vectors("sum", C)
    with pytest.raises(ValueError, match=r"layers.0.fc9.*expected some of.*layers.0.fc1"):
        ntk.gram(model, ROWS, vectors, names={"layers.0.fc9"})
    with pytest.raises(ValueError, match=r"\(1, 5\).*\(any number, 8\)"):
        ntk.gram(model, ROWS, torch.ones(1, 5))
    with pytest.raises(ValueError, match=r"found 8 projected vectors for 8 classes, expected 1 .. 7"):
        ntk.vectors("projected", C)
    with pytest.raises(ValueError, match=r"\(2, 2\) and \(3, 3\)"):
        ntk.drift(torch.eye(2), torch.eye(3))
