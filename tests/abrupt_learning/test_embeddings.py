"""t-SNE against scikit-learn and autograd; the scores of tables on planted ones; permuted positions; the analysis itself."""

from dataclasses import asdict

import pytest
import torch

from abrupt_learning.analysis._embeddings_figure import draw
from abrupt_learning.analysis.embeddings import (
    Settings,
    analyse,
    finding,
    permuted,
    structured_orders,
    trained_values,
)
from abrupt_learning.data import Data, sample
from abrupt_learning.estimators.geometry import (
    chance_purity,
    principal_axes,
    purity,
    sign_and_magnitude,
    symmetry,
    turned_onto,
)
from abrupt_learning.estimators.tsne import affinities, descend, joint, student, tsne
from abrupt_learning.evaluate import Trained, predict
from abrupt_learning.model import Bert, Model


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def grid_points(rows: int, columns: int, width: int, row_weight: float) -> torch.Tensor:
    """Position vectors that are a column's vector, plus a weaker row's vector, plus a little noise."""
    column, row = noise(columns, width), row_weight * noise(rows, width, seed=1)
    return (column + row[:, None]).flatten(0, 1) + 0.1 * noise(rows * columns, width, seed=2)


def divergence(P: torch.Tensor, Y: torch.Tensor) -> torch.Tensor:
    """KL(P || Q) in nats of a picture Y (..., N, 2), what t-SNE minimises."""
    return (P * (P / student(Y)[1]).log()).sum((-2, -1))


CLOUDS = {
    "grid": grid_points(7, 7, 32, 0.5),
    "clusters": 3 * noise(5, 8)[torch.arange(40) % 5] + noise(40, 8, seed=1),
    "noise": noise(30, 16),
}


@pytest.mark.parametrize("perplexity", [3.0, 10.0])
def test_every_row_has_the_perplexity_asked_for(perplexity):
    P = affinities(torch.stack([50 * CLOUDS["noise"], 1e-3 * CLOUDS["noise"]]), perplexity)
    torch.testing.assert_close(P.sum(-1), torch.ones(2, 30, dtype=torch.float64))
    torch.testing.assert_close(
        torch.special.entr(P).sum(-1).exp(), torch.full((2, 30), perplexity, dtype=torch.float64)
    )
    assert P.diagonal(dim1=1, dim2=2).eq(0).all()


@pytest.mark.parametrize("name", CLOUDS)
def test_divergence_is_no_worse_than_that_of_scikit_learn(name):
    from sklearn.manifold import TSNE

    X = CLOUDS[name]
    perplexity = min(10, 0.99 * (len(X) - 1) / 3)
    theirs = TSNE(perplexity=perplexity, method="exact", init="pca", random_state=0).fit(X.numpy())
    P = joint(X, perplexity)
    assert abs(divergence(P, torch.tensor(theirs.embedding_).double()) - theirs.kl_divergence_) < 1e-4
    assert divergence(P, tsne(X, 10)) < 1.05 * theirs.kl_divergence_


def test_a_step_of_tsne_is_along_autograds_gradient():
    P, Y = joint(CLOUDS["noise"], 5), noise(30, 2, seed=3).requires_grad_()
    (gradient,) = torch.autograd.grad(divergence(P, Y), Y)
    moved = descend(P, Y.detach(), momentum=0.5, steps=1) - Y.detach()
    torch.testing.assert_close(moved, -0.8 * 30 / 4 * gradient)  # first gain 0.8, rate N / 4


def test_tsne_repeats_bit_by_bit_and_takes_batches():
    X = torch.stack([grid_points(4, 4, 8, weight) for weight in (0.3, 0.6)])
    assert tsne(X).equal(tsne(X))
    alone = torch.stack([divergence(joint(x, 0.99 * 5), tsne(x)) for x in X])
    torch.testing.assert_close(divergence(joint(X, 0.99 * 5), tsne(X)), alone, rtol=0.05, atol=0.01)


def test_tsne_keeps_clusters_apart():
    picture = tsne(CLOUDS["clusters"])
    nearest = torch.cdist(picture, picture).fill_diagonal_(torch.inf).argmin(1)
    assert (nearest % 5 == torch.arange(40) % 5).double().mean() > 0.9


def test_purity_of_planted_columns_and_rows():
    assert purity(grid_points(4, 6, 32, 0.0), 6)["column"] == 1
    rows = grid_points(6, 4, 32, 0.0).view(6, 4, 32).transpose(0, 1).flatten(0, 1)
    assert purity(rows, 6) == {"column": 0, "row": 1}


def test_purity_equals_a_literal_loop_and_averages_to_chance():
    rows, columns, draws = 3, 5, 400
    found = []
    for seed in range(draws):
        X = noise(rows * columns, 8, seed=seed)
        same = 0
        for cell in range(rows * columns):
            others = [k for k in range(rows * columns) if k != cell]
            same += min(others, key=lambda k: (X[k] - X[cell]).norm()) % columns == cell % columns
        found.append(purity(X, columns))
        assert found[-1]["column"] == pytest.approx(same / (rows * columns))
    for name, chance in chance_purity(rows, columns).items():
        assert sum(f[name] for f in found) / draws == pytest.approx(chance, abs=4 * (0.25 / 15 / draws) ** 0.5)


def test_symmetry_is_1_for_even_norms_and_minus_1_for_odd_ones():
    k = torch.tensor([-3, -2, -1, 1, 2, 3, 4])  # 4 has no partner
    direction = torch.nn.functional.normalize(noise(7, 5))
    assert symmetry(direction * (1 + k.double() ** 2)[:, None], k) == pytest.approx(1)
    assert symmetry(direction * (9 + k)[:, None], k) == pytest.approx(-1)


def test_sign_and_magnitude_find_their_component_in_any_order():
    k = torch.cat([torch.arange(-20, 0), torch.arange(1, 21)])
    planted = torch.stack([k.sign(), -k.abs()], 1).double()
    for scores in (planted, planted.flip(1)):
        found = sign_and_magnitude(scores, k)
        assert found["sign"] == pytest.approx(1) and found["magnitude"] == pytest.approx(1)
    assert sign_and_magnitude(torch.stack([k, k], 1).double(), k)["magnitude"] == pytest.approx(0, abs=1e-9)


def test_principal_axes_are_centred_orthonormal_and_of_largest_variance():
    X = noise(50, 6) * torch.tensor([5.0, 3, 1, 1, 1, 1]) + 100
    mean, axes = principal_axes(X)
    scores = (X - mean) @ axes
    variance = torch.linalg.eigvalsh(torch.cov(X.T)).flip(0)[:2]
    torch.testing.assert_close(torch.cov(scores.T), variance.diag())
    torch.testing.assert_close(axes.T @ axes, torch.eye(2, dtype=torch.float64))
    torch.testing.assert_close(principal_axes(X.flip(0))[1], axes)


def test_turning_undoes_a_rotation_and_keeps_distances():
    reference = noise(16, 2) - noise(16, 2).mean(0)
    turn = torch.linalg.qr(noise(2, 2, seed=4))[0]
    torch.testing.assert_close(turned_onto(reference @ turn, reference), reference)
    other = noise(16, 2, seed=5)
    torch.testing.assert_close(
        torch.cdist(turned_onto(other, reference), turned_onto(other, reference)), torch.cdist(other, other)
    )


@pytest.mark.parametrize(
    ("data", "lowest", "highest", "count"),
    [
        (Data(), -150, 150, 300),
        (Data(rank=1, precision=1, limit=1.0), -10, 10, 20),
        (Data(rank=1, low=0.0, precision=1), 1, 10, 10),
    ],
)
def test_values_are_those_that_training_draws(data, lowest, highest, count):
    k = trained_values(data, largest=1.5, rarest=1e-5)
    assert (k.min(), k.max(), len(k)) == (lowest, highest, count)
    assert 0 not in k


ROWS, COLUMNS = 3, 5
DATA = Data(sizes=[[ROWS, COLUMNS]], rank=1, precision=1, limit=1.0)


def test_permuting_positions_equals_editing_the_table():
    generator = torch.Generator().manual_seed(0)
    config = Model(hidden_size=16, n_layer=2, n_head=2, init_std=0.5)
    model = Bert(config, DATA.vocabulary, DATA.cells, generator).requires_grad_(False)
    batch = sample(DATA, 8, generator)
    order = torch.randperm(DATA.cells, generator=generator)
    shuffled = permuted(model, batch, order)
    assert permuted(model, batch, structured_orders(ROWS, COLUMNS)["identity"]).equal(predict(model, batch.ids))
    table = model.embeddings.position_embeddings.weight
    table.copy_(table[order].clone())
    torch.testing.assert_close(shuffled, predict(model, batch.ids), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", [(4, 4), (3, 5), (1, 4)])
def test_structured_orders_keep_rank_one(size):
    cells = (noise(size[0], 1) @ noise(1, size[1], seed=1)).flatten()
    orders = structured_orders(*size)
    assert ("transpose" in orders) == (size[0] == size[1])
    for order in orders.values():
        assert order.sort().values.equal(torch.arange(len(cells)))
        assert torch.linalg.matrix_rank(cells[order].view(size)) == 1


def test_analysis_of_a_run(smoke_run):
    trained = Trained(smoke_run, "cpu", 1)
    settings = Settings(matrices=16, permutations=3)
    result = {"seeds": trained.seeds, "settings": asdict(settings), **analyse(trained, settings)}
    trained.run.result("embeddings", result)
    result = trained.run.read("embeddings")
    assert (
        set(result["maps"]["tokens"]) == {"early", "middle", "before", "after", "late", "end"} == set(result["tokens"])
    )
    end = result["tokens"]["end"]
    assert end["final_axes"] == end["own_axes"]
    assert set(result["positions"]) == set(result["maps"]["positions"]) == set(result["tokens"])
    assert all(len(score["values"]) == 3 for score in result["permute"]["random"].values())
    assert len(draw(result).axes) == 3 + 1 + 3 + 6 + 6  # one is the colour bar
    assert "chance" in finding(result)
