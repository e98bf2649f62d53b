"""Ridge and dMMSE against loops over positions and tasks, against each other, and against what the noise allows."""

import math
from statistics import NormalDist

import pytest
import torch

from icl_landscape.regression.baselines import dmmse, ridge
from icl_landscape.regression.data import TRUE, Data, pretraining_tasks, sample, sample_stack, scale_inputs
from icl_landscape.regression.losses import token_losses


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def literal_ridge(x: torch.Tensor, y: torch.Tensor, sigma2: float) -> torch.Tensor:
    """w = (X^T X + sigma^2 I)^-1 X^T y of each prefix of each sequence."""
    predictions = torch.zeros_like(y)
    for b in range(len(x)):
        for k in range(x.shape[1]):
            X, target = x[b, :k].double(), y[b, :k].double()
            w = torch.linalg.solve(X.T @ X + sigma2 * torch.eye(x.shape[2], dtype=torch.double), X.T @ target)
            predictions[b, k] = w @ x[b, k].double()
    return predictions


def literal_dmmse(x: torch.Tensor, y: torch.Tensor, table: torch.Tensor, sigma2: float) -> torch.Tensor:
    """Bayes' rule, task by task."""
    predictions = torch.zeros_like(y)
    for b in range(len(x)):
        for k in range(x.shape[1]):
            logs = [-sum(float(y[b, j] - t @ x[b, j]) ** 2 for j in range(k)) / (2 * sigma2) for t in table]
            weights = [math.exp(value - max(logs)) for value in logs]
            said = sum(w * float(t @ x[b, k]) for w, t in zip(weights, table, strict=True))
            predictions[b, k] = said / sum(weights)
    return predictions


@pytest.mark.parametrize("D, K, sigma2", [(4, 8, 0.125), (4, 16, 0.00049), (8, 3, 0.25), (1, 1, 1.0)])
def test_ridge_equals_a_solve_per_position(D, K, sigma2):
    batch = sample(Data(D=D, K=K, sigma2=sigma2), TRUE, 6, stream())
    ours = ridge(batch.x, batch.y, sigma2)
    torch.testing.assert_close(ours, literal_ridge(batch.x, batch.y, sigma2), rtol=1e-5, atol=1e-5)
    assert (ours[:, 0] == 0).all() and ours.dtype == batch.y.dtype


@pytest.mark.parametrize("elements", [1, 200, 2**22])
@pytest.mark.parametrize("M", [1, 2, 7])
def test_dmmse_equals_bayes_rule_for_any_number_of_tasks_and_any_chunks(M, elements):
    data = Data(M=M, K=5)
    law = pretraining_tasks(data, 0)
    batch = sample(data, law, 6, stream())
    ours = dmmse(batch.x, batch.y, law.table, data.sigma2, elements)
    torch.testing.assert_close(ours, literal_dmmse(batch.x, batch.y, law.table, data.sigma2), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours[:, 0], batch.x[:, 0] @ law.table.mean(0))


def test_posteriors_stay_sharp_where_inputs_are_a_hundred_times_larger():
    data = Data(M=5)
    law = pretraining_tasks(data, 0)
    batch = scale_inputs(sample(data, law, 6, stream()), 100)
    said = dmmse(batch.x, batch.y, law.table, data.sigma2)
    torch.testing.assert_close(said, literal_dmmse(batch.x, batch.y, law.table, data.sigma2), rtol=1e-4, atol=1e-2)
    literal = literal_ridge(batch.x, batch.y, data.sigma2)
    torch.testing.assert_close(ridge(batch.x, batch.y, data.sigma2), literal, rtol=1e-5, atol=1e-3)


def test_a_singleton_is_known_from_the_start():
    data = Data(task=[1.0, -2.0, 0.5, 0.0])
    law = pretraining_tasks(data, 0)
    batch = sample(data, law, 20, stream())
    torch.testing.assert_close(dmmse(batch.x, batch.y, law.table, 0.125), batch.x @ law.table[0])


def test_dmmse_of_many_tasks_is_ridge():
    """Tasks at the quantiles of N(0, 1) in one dimension: the sum over them is the integral over the prior."""
    data, M = Data(D=1, K=6), 20_001
    table = torch.tensor([[NormalDist().inv_cdf((m + 0.5) / M)] for m in range(M)])
    batch = sample(data, TRUE, 10, stream())
    ours = dmmse(batch.x, batch.y, table, data.sigma2)
    torch.testing.assert_close(ours, ridge(batch.x, batch.y, data.sigma2), rtol=1e-3, atol=1e-3)


def test_a_stack_is_its_replicas():
    data = Data(M=9)
    law = pretraining_tasks(data, 0)
    x, y, _ = sample_stack(data, [law] * 3, 10, [stream(seed) for seed in range(3)])
    for predictor in (lambda x, y: ridge(x, y, 0.125), lambda x, y: dmmse(x, y, law.table, 0.125)):
        torch.testing.assert_close(predictor(x, y), torch.stack([predictor(*one) for one in zip(x, y, strict=True)]))


@pytest.mark.parametrize("predictor", ["ridge", "dmmse"])
def test_a_prediction_does_not_see_its_own_y_or_later_examples(predictor):
    law = pretraining_tasks(Data(M=9), 0)
    said = (lambda x, y: ridge(x, y, 0.125)) if predictor == "ridge" else (lambda x, y: dmmse(x, y, law.table, 0.125))
    batch = sample(Data(M=9), law, 10, stream())
    y = batch.y.clone()
    y[:, 4:] += 1
    before, after = said(batch.x, batch.y), said(batch.x, y)
    torch.testing.assert_close(after[:, :5], before[:, :5])
    assert not torch.allclose(after[:, 5], before[:, 5])


@pytest.mark.parametrize("K, mean", [(8, 1.652), (16, 0.936)])
def test_risk_of_ridge(K, mean):
    """The first is E y^2 = D + sigma^2, the last is on its way to sigma^2; the means are those of 20,000 other sequences."""
    data = Data(K=K)
    batch = sample(data, TRUE, 20_000, stream())
    losses = token_losses(ridge(batch.x, batch.y, data.sigma2), batch.y)
    assert losses[0] == pytest.approx(4.125, rel=0.05)
    assert (losses[1:] < losses[:-1]).all() and losses[-1] > data.sigma2
    assert losses.mean() == pytest.approx(mean, rel=0.03)


def test_each_is_the_best_on_its_own_law():
    data = Data(M=16)
    law = pretraining_tasks(data, 0)
    for tasks, best in ((law, "dmmse"), (TRUE, "ridge")):
        batch = sample(data, tasks, 2000, stream())
        said = {"dmmse": dmmse(batch.x, batch.y, law.table, 0.125), "ridge": ridge(batch.x, batch.y, 0.125)}
        risks = {name: float(token_losses(values, batch.y).mean()) for name, values in said.items()}
        assert min(risks, key=risks.get) == best
