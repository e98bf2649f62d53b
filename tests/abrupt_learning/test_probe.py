"""Probes against planted targets, reference solvers and closed forms; what they predict, cell by cell; the analysis."""

import math
from dataclasses import asdict

import pytest
import torch

from abrupt_learning.analysis.probe import Settings, analyse, draw, finding, hidden_states
from abrupt_learning.data import Data, sample
from abrupt_learning.estimators.linear_probe import (
    LeastSquares,
    chance_cosine,
    leading_eigenvectors,
    leading_vectors,
    scores,
    targets,
    zero_levels,
)
from abrupt_learning.evaluate import Trained, predict
from abrupt_learning.model import Bert, Model

ROWS, COLUMNS = 3, 5
DATA = Data(sizes=[[ROWS, COLUMNS]], rank=2, p_mask=0.3)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def fit(H: torch.Tensor, Y: torch.Tensor, chunks: int = 1):
    """(W, training error) from the rows in so many chunks."""
    squares = LeastSquares()
    for h, y in zip(H.chunk(chunks), Y.chunk(chunks), strict=True):
        squares.add(h, y)
    return squares.solve()


def test_planted_target_is_recovered_to_machine_precision():
    H, W, intercept = noise(500, 20), noise(20, 3, seed=1), 7.0
    found, error = fit(H, H @ W + intercept, chunks=4)
    torch.testing.assert_close(found[:-1], W, atol=1e-12, rtol=0)
    torch.testing.assert_close(found[-1], torch.full((3,), intercept, dtype=torch.float64), atol=1e-12, rtol=0)
    assert error.max() < 1e-24


def test_fit_equals_lstsq_and_does_not_depend_on_the_chunks():
    H, Y = noise(300, 12), noise(300, 4, seed=1)
    ones = torch.cat([H, torch.ones(300, 1, dtype=torch.float64)], 1)
    reference = torch.linalg.lstsq(ones, Y).solution
    for chunks in (1, 3, 60):
        W, error = fit(H, Y, chunks)
        torch.testing.assert_close(W, reference, atol=1e-12, rtol=0)
        torch.testing.assert_close(error, (ones @ W - Y).square().mean(0))


def test_dependent_inputs_do_no_harm():
    """After LayerNorm the inputs add up to a constant: with the intercept the system is singular, but for rounding."""
    H = torch.nn.functional.layer_norm(noise(400, 10).float(), (10,)).double()
    Y = H @ noise(10, 2, seed=1) + 3
    W, error = fit(H, Y)
    assert W.abs().max() < 20
    assert error.max() < 1e-12
    test = torch.nn.functional.layer_norm(noise(100, 10, seed=2).float(), (10,)).double()
    torch.testing.assert_close(test @ W[:-1] + W[-1], test @ noise(10, 2, seed=1) + 3, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("dimension", "level"), [(1, 1), (2, 2 / math.pi), (3, 0.5), (7, 0.3125)])
def test_chance_cosine_in_closed_form(dimension, level):
    assert chance_cosine(dimension) == pytest.approx(level, abs=1e-12)


@pytest.mark.parametrize("dimension", [4, 7])
def test_chance_cosine_of_random_directions(dimension):
    a, b = noise(40_000, dimension), noise(40_000, dimension, seed=1)
    cosines = torch.nn.functional.cosine_similarity(a, b).abs()
    assert cosines.mean() == pytest.approx(chance_cosine(dimension), abs=4 * float(cosines.std()) / 200)


def test_leading_vector_has_no_arbitrary_sign():
    u, v = torch.nn.functional.normalize(noise(50, 4)), noise(50, 6, seed=1)
    X = u[:, :, None] * v[:, None, :]
    found = leading_vectors(X)
    torch.testing.assert_close(found, leading_vectors(-X))
    torch.testing.assert_close((found * u).sum(1).abs(), torch.ones(50, dtype=torch.float64))
    assert found.gather(1, found.abs().argmax(1, keepdim=True)).gt(0).all()
    assert not torch.allclose(u, found)


def test_leading_eigenvector_undoes_the_projector():
    u = torch.nn.functional.normalize(noise(50, 4))
    found = leading_eigenvectors((u[:, :, None] * u[:, None, :]).flatten(1) + 0.05 * noise(50, 16, seed=1))
    assert (found * u).sum(1).abs().min() > 0.9


def test_targets_cell_by_cell():
    batch = sample(DATA, 6, torch.Generator().manual_seed(0))
    Y = targets(batch, [ROWS, COLUMNS])
    for b in range(6):
        X = batch.target[b].view(ROWS, COLUMNS).double()
        shown = batch.observed[b].view(ROWS, COLUMNS)
        u = torch.linalg.svd(X).U[:, 0]
        for i in range(ROWS):
            for j in range(COLUMNS):
                cell = i * COLUMNS + j
                assert Y["element"][b, cell, 0] == X[i, j]
                assert Y["row"][b, cell].tolist() == [float(X[i, k]) if shown[i, k] else 0.0 for k in range(COLUMNS)]
                column = [float(X[k, j]) if shown[k, j] else 0.0 for k in range(ROWS)]
                assert Y["column"][b, cell].tolist() == column
                torch.testing.assert_close(Y["svd"][b, cell].abs(), u.abs())
                torch.testing.assert_close(Y["projector"][b, cell], torch.outer(u, u).flatten())


def test_zero_levels_are_the_mean_squares_of_the_targets():
    Y = targets(sample(DATA, 4000, torch.Generator().manual_seed(0)), [ROWS, COLUMNS])
    for name, level in zero_levels(DATA).items():
        per_matrix = Y[name].square().mean((1, 2))
        assert per_matrix.mean() == pytest.approx(level, abs=4 * float(per_matrix.std()) / 4000**0.5 + 1e-5)
    assert zero_levels(Data())["row"] == pytest.approx(0.7 * 2 / 9)


def test_scores_of_a_perfect_and_of_a_biased_prediction():
    batch = sample(DATA, 32, torch.Generator().manual_seed(0))
    truth = targets(batch, [ROWS, COLUMNS])
    for name in truth:
        perfect = scores(name, truth[name], truth, batch.observed)
        assert perfect["mse"] == 0
        assert perfect.get("cosine", 1.0) == pytest.approx(1)
    shifted = scores("element", truth["element"] + 0.5 * ~batch.observed[..., None], truth, batch.observed)
    assert shifted["mse_observed"] == 0 and shifted["mse_masked"] == pytest.approx(0.25)
    assert shifted["mse"] == pytest.approx(0.25 * float((~batch.observed).double().mean()))
    assert scores("svd", -truth["svd"], truth, batch.observed)["cosine"] == pytest.approx(1)


def test_the_last_hidden_state_holds_the_prediction():
    """Every layer is there, and a probe finds the model's own read-out."""
    generator = torch.Generator().manual_seed(0)
    model = Bert(Model(hidden_size=8, n_layer=3, n_head=2, init_std=0.3), DATA.vocabulary, DATA.cells, generator)
    ids = sample(DATA, 64, generator).ids
    states = hidden_states(model, ids)
    assert states.shape == (4, 64, DATA.cells, 8)
    torch.testing.assert_close(model.read_out(states[-1]).squeeze(-1), predict(model, ids))
    prediction = predict(model, ids).double().flatten()[:, None]
    assert fit(states[-1].double().flatten(0, 1), prediction)[1].max() < 1e-12


def literal_row_probe(trained: Trained, layer: int, settings: Settings) -> tuple[float, float]:
    """(training error, test error) of the last seed's probe for the shown row, by the reference solver in one piece."""
    model, parts = trained.model(trained.seeds[-1]), []
    for number, name in ((settings.train, "probe train"), (settings.test, "probe test")):
        batch = trained.matrices(number, name)
        H = hidden_states(model, batch.ids)[layer].double().flatten(0, 1)
        Y = targets(batch, trained.data.sizes[0])["row"].flatten(0, 1)
        parts.append((torch.cat([H, torch.ones(len(H), 1, dtype=torch.float64)], 1), Y))
    W = torch.linalg.lstsq(*parts[0], driver="gelsd", rcond=1e-6).solution
    return tuple(float((H @ W - Y).square().mean()) for H, Y in parts)


def test_analysis_of_a_run(smoke_run):
    trained, settings = Trained(smoke_run, "cpu", 1), Settings(train=48, test=16, chunk=20)
    result = {"seeds": trained.seeds, "settings": asdict(settings), **analyse(trained, settings)}
    trained.run.result("probe", result)
    result = trained.run.read("probe")
    layers = trained.config.model.n_layer + 1
    for at in settings.milestones:
        assert len(result["layers"][at]) == layers
        for row in result["layers"][at]:
            assert set(row) == {"element", "row", "column", "svd", "projector"}
    assert result["chance"] == {
        name: pytest.approx(4 / (3 * math.pi)) for name in ("row", "column", "svd", "projector")
    }
    found = result["layers"]["end"][1]["row"]
    expected = literal_row_probe(trained, layer=1, settings=settings)
    assert (found["train_mse"]["values"][2], found["mse"]["values"][2]) == pytest.approx(expected, rel=1e-4)
    assert len(draw(result).axes) == 10
    assert f"of {layers - 1}" in finding(result)
