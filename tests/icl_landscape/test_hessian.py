"""The curvature of one model against its whole Hessian by double backward, and C12 on made-up curves."""

import pytest
import torch
from torch.func import functional_call

from icl_landscape.analysis import hessian
from icl_landscape.analysis.hessian import Settings, measure
from icl_landscape.evaluate import Trained
from icl_landscape.regression.data import Data
from icl_landscape.regression.model import Model, Transformer


@pytest.fixture(scope="module")
def tiny():
    """A model of 154 weights in double, with sequences for it."""
    stream = torch.Generator().manual_seed(0)
    data = Data(D=2, K=2)
    model = Transformer(Model(d=4, heads=2, layers=1, d_mlp=4), data, stream).double().requires_grad_(False)
    x, t = (torch.randn(*shape, generator=stream).double() for shape in ((16, 2, 2), (16, 1, 2)))
    return model, x, (x * t).sum(-1)


def dense(model, x, y) -> torch.Tensor:
    """The whole matrix, a row by each derivative of a gradient."""
    leaves = {n: p.detach().clone().requires_grad_() for n, p in model.named_parameters()}
    loss = (functional_call(model, leaves, (x, y)) - y).square().mean()
    first = torch.autograd.grad(loss, list(leaves.values()), create_graph=True, materialize_grads=True)
    gradient = torch.cat([g.flatten() for g in first])
    rows = []
    for entry in gradient:
        # A dead weight's gradient is a constant 0, of which there is no derivative
        if entry.requires_grad:
            parts = torch.autograd.grad(
                entry, list(leaves.values()), retain_graph=True, materialize_grads=True, allow_unused=True
            )
            rows.append(torch.cat([p.flatten() for p in parts]))
        else:
            rows.append(torch.zeros_like(gradient))
    return torch.stack(rows)


def test_eigenvalues_and_trace_are_those_of_the_whole_matrix(tiny):
    H = dense(*tiny)
    told = measure(Settings(top=3, iterations=100, tolerance=1e-9, probes=400), *tiny, seed=0)
    values = torch.linalg.eigvalsh(H)
    torch.testing.assert_close(torch.tensor(told["top"]).double(), values.flip(0)[:3], rtol=1e-5, atol=1e-7)
    assert told["lowest"] == pytest.approx(float(values[0]), rel=1e-4)
    assert abs(told["trace"] - float(H.trace())) < 4 * told["trace_error"]
    # Var(v . Hv) for random signs is 2 (|H|^2 - |diag H|^2)
    spread = (2 * float(H.square().sum() - H.diag().square().sum()) / 400) ** 0.5
    assert told["trace_error"] == pytest.approx(spread, rel=0.2)


@pytest.fixture(scope="module")
def trained(study_of) -> Trained:
    return Trained(study_of("icl_landscape") / "main", "cpu", 1)


def test_every_seed_and_checkpoint_has_numbers_of_its_own_model(trained):
    settings = Settings(points=3, sequences=8, iterations=8, probes=2)
    told, batch = hessian.analyse(trained, settings), trained.sequences(8)
    step, last = told["steps"][-1], len(told["steps"]) - 1
    for number, seed in enumerate(trained.seeds):
        own = measure(settings, trained.model(seed, step), batch.x[number], batch.y[number], seed)
        assert told["top"][number][last] == pytest.approx(own["top"], rel=1e-4)
        predictions = trained.model(seed, step)(batch.x[number], batch.y[number])
        assert told["prior_score"][number][last] == pytest.approx(float(predictions.square().mean()), rel=1e-4)


def test_more_eigenvalues_than_iterations_are_refused():
    with pytest.raises(ValueError, match="expected top <= iterations"):
        Settings(top=5, iterations=4)


def result(first=(30, 32, 100, 60), traces=(100, 120, 900, 700), prior=(0.3, 0.02, 1.0, 2.0)) -> dict:
    return {
        "steps": [0, 50, 400, 4000],
        "top": [[[value, 1.0, 0.5] for value in first]] * 3,
        "trace": [list(traces)] * 3,
        "prior_score": [list(prior)] * 3,
    }


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, "reproduced"),
        ({"first": (30, 32, 47, 20)}, "contradicted"),
        ({"first": (30, 32, 49, 20)}, "reproduced"),
        ({"traces": (100, 120, 179, 100)}, "contradicted"),
        ({"traces": (100, 120, 181, 100)}, "reproduced"),
        ({"first": (30, 32, 100, 91)}, "contradicted"),
        ({"first": (30, 32, 100, 89)}, "reproduced"),
        ({"first": (100, 32, 90, 60)}, "contradicted"),
    ],
)
def test_c12_wants_a_peak_after_the_prior_and_a_fall_after_it(changes, verdict):
    claim = hessian.CLAIMS[0]
    assert claim.verdict(claim.values(result(**changes))) == verdict


def test_the_figure_and_the_finding_are_made():
    assert "100 at its peak at steps [400, 400, 400], 60 at the end" in hessian.finding(result())
    assert hessian.draw(result())
