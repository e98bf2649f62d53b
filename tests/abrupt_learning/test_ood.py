"""Other laws and shapes: levels of predicting 0, what is clamped, what is left out, and the solver on the same matrices."""

from dataclasses import asdict, replace

import pytest
import torch

from abrupt_learning.analysis import ood, ood_shapes
from abrupt_learning.analysis._beside_solver import measure
from abrupt_learning.analysis.ood_shapes import Settings
from abrupt_learning.data import Data, sample
from abrupt_learning.evaluate import Trained, predict
from common.config import UserError


@pytest.fixture(scope="module")
def trained(smoke_run) -> Trained:
    return Trained(smoke_run, "cpu", 1)


@pytest.fixture(scope="module")
def laws(trained) -> dict:
    settings = ood.Settings(matrices=64)
    return {"settings": asdict(settings), **ood.analyse(trained, settings)}


@pytest.fixture(scope="module")
def shapes(trained) -> dict:
    settings = Settings(ranks=[1, 4], rows=[3, 4, 5], columns=[4, 3], matrices=32)
    result = {"settings": asdict(settings), "seeds": trained.seeds, **ood_shapes.analyse(trained, settings)}
    trained.run.result("ood_shapes", result)
    return trained.run.read("ood_shapes")


@pytest.mark.parametrize(
    ("law", "scale", "level"), [("uniform", 1.0, 2 / 9), ("gaussian", 0.5, 0.125), ("laplace", 0.25, 0.03125)]
)
def test_levels_of_predicting_zero(law, scale, level):
    data = Data(law=law, scale=scale, precision=3)
    assert data.variance == pytest.approx(level)
    per_matrix = sample(data, 8000, torch.Generator().manual_seed(0)).target.square().mean(1)
    assert per_matrix.mean() == pytest.approx(level, abs=4 * float(per_matrix.std()) / 8000**0.5 + 1e-6)


def test_every_law_is_measured_at_every_seed(laws, trained):
    assert list(laws["laws"]) == ["uniform", "gaussian", "laplace"]
    for name, law in laws["laws"].items():
        assert len(law["losses"]["loss_masked"]["values"]) == len(trained.seeds)
        assert law["variance"] == pytest.approx({"uniform": 1 / 9, "gaussian": 1 / 16, "laplace": 1 / 64}[name])


def test_loss_is_made_of_its_two_parts(laws, trained):
    shown = trained.matrices(64, law="gaussian", scale=0.5).observed.double().mean()
    losses = laws["laws"]["gaussian"]["losses"]
    for whole, observed, masked in zip(
        *(losses[name]["values"] for name in ("loss", "loss_observed", "loss_masked")), strict=True
    ):
        assert whole == pytest.approx(float(shown) * observed + float(1 - shown) * masked, rel=1e-6)


def test_entries_beyond_the_vocabulary_are_counted(laws):
    share = {name: law["clamped_share"] for name, law in laws["laws"].items()}
    assert share["uniform"] == 0  # rank 1: |x| <= 1, the vocabulary's limit
    draws = torch.randn(2, 1_000_000, generator=torch.Generator().manual_seed(0)) / 2
    beyond = float((draws.prod(0).abs() > 1.05).double().mean())
    assert share["gaussian"] == pytest.approx(beyond, rel=0.25)


def test_laws_are_drawn_and_told(laws):
    assert ood.draw(laws).axes[0].get_yscale() == "log"
    assert "laplace" in ood.finding(laws)


def test_shapes_beyond_the_position_table_are_left_out(shapes):
    assert shapes["positions"] == 16
    assert shapes["skipped"] == [[5, 4, 1]]
    assert [point["value"] for point in shapes["rows"]] == [3, 4]
    assert "1 shapes" in ood_shapes.finding(shapes)


def test_the_trained_shape_is_the_same_point_of_all_sweeps(shapes):
    own = [
        {key: value for key, value in point.items() if key != "value"}
        for name, place in shapes["trained_on"].items()
        for point in shapes[name]
        if point["value"] == place
    ]
    assert len(own) == 3
    assert own[0] == own[1] == own[2]


def test_model_and_solver_see_the_same_matrices(shapes, trained):
    size = [3, 4]
    batch = trained.matrices(32, sizes=[size], rank=1)
    point = next(point for point in shapes["rows"] if point["value"] == 3)
    assert point["truth"] == pytest.approx(float(torch.linalg.matrix_norm(batch.target.view(-1, *size), "nuc").mean()))
    literal = (predict(trained.model(trained.seeds[1]), batch.ids) - batch.target).square().mean()
    assert point["bert"]["loss"]["values"][1] == pytest.approx(float(literal), rel=1e-5)
    assert point["solver"]["loss_observed"] == pytest.approx(0, abs=1e-12)
    assert point["solver"]["nuclear_norm"] <= point["truth"] + 1e-4
    assert point["copying"] == pytest.approx(float((batch.target * ~batch.observed).square().mean()))


def test_higher_ranks_leave_the_vocabulary(shapes):
    share = {point["value"]: point["clamped_share"] for point in shapes["ranks"]}
    assert share[1] == 0
    assert share[4] > 0.05


def test_nuclear_norm_of_a_rank_one_matrix_is_its_frobenius_norm():
    batch = sample(Data(sizes=[[4, 6]], rank=1), 16, torch.Generator().manual_seed(0))
    X = torch.randn(16, 4, 1) @ torch.randn(16, 1, 6)
    assert measure(X.flatten(1), batch.target, batch, [4, 6])["nuclear_norm"] == pytest.approx(
        float(X.norm(dim=(1, 2)).mean()), rel=1e-5
    )


def test_no_shape_that_fits_is_a_users_mistake(trained):
    settings = replace(Settings(matrices=8), ranks=[], rows=[5], columns=[9])
    with pytest.raises(UserError, match="at most 16 cells"):
        ood_shapes.analyse(trained, settings)


def test_shapes_are_drawn(shapes):
    assert len(ood_shapes.draw(shapes).axes) == 6
    assert "times the solver's error" in ood_shapes.finding(shapes)
