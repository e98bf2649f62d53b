"""The plane of planted points; chains' weights and losses against other ways to get them; the experiment on a short run."""

import json

import numpy as np
import pytest
import torch

from icl_landscape.analysis._llc import measure
from icl_landscape.analysis.landscape import Plane, Settings, analyse, draw, finding, losses_at, walked
from icl_landscape.evaluate import Trained
from icl_landscape.regression.data import Batch
from icl_landscape.regression.losses import objective
from icl_landscape.sgmcmc.settings import Sampling


@pytest.fixture(scope="module")
def trained(study_of):
    return Trained(study_of("icl_landscape") / "main", "cpu", 1)


def test_a_planted_plane_is_found():
    source = torch.Generator().manual_seed(0)
    axes = torch.linalg.qr(torch.randn(30, 2, generator=source, dtype=torch.float64))[0].T
    at = torch.randn(50, 2, generator=source, dtype=torch.float64) * torch.tensor([5.0, 1.0])
    points = 3 + at @ axes
    plane = Plane.of(points)
    torch.testing.assert_close(plane.point(plane.place(points)), points)
    torch.testing.assert_close(plane.axes @ plane.axes.T, torch.eye(2, dtype=torch.float64))
    spread = plane.place(points).square().sum(0)
    singular = torch.linalg.svdvals(points - points.mean(0)).square()
    torch.testing.assert_close(spread, singular[:2])
    assert plane.explained == pytest.approx((singular[:3] / singular.sum()).tolist(), abs=1e-9)


def test_the_chains_are_those_of_the_llc(trained):
    sampling = Sampling(chains=2, burn_in=2, draws=4, every=2, batch=4)
    settings = Settings(stability=0.4, sharpness=4, iterations=2, reference=256, sampling=sampling)
    weights, trace = walked(trained, settings, 1, 60), measure(trained, settings, 1, [60]).trace
    start = torch.cat([p.flatten() for p in trained.model(1, 60).parameters()])
    torch.testing.assert_close((weights - start).norm(dim=2), trace.distance)


def test_losses_are_those_of_the_models(trained):
    models = [trained.model(0, step) for step in (0, 20, 60)]
    points = torch.stack([torch.cat([p.flatten() for p in model.parameters()]) for model in models])
    batch = Batch(*(part[0] for part in trained.sequences(16)))
    told = losses_at(trained, Settings(cells=2), 0, points, batch)
    assert told == pytest.approx([float(objective(model, batch.x, batch.y)[0]) for model in models], rel=1e-6)


def test_the_experiment_on_a_run(trained):
    sampling = Sampling(chains=2, draws=5, batch=4)
    result = analyse(trained, Settings(at=[0, 60], seeds=1, cells=3, sequences=8, sharpness=0, sampling=sampling))
    one = result["panels"][0][1]
    assert np.shape(one["losses"]) == (3, 3) and np.shape(one["draws"]) == (2, 5, 2) and len(result["panels"][0]) == 2
    # The first draw of every chain is w* itself.
    assert one["draws"][0][0] == pytest.approx(one["centre"]) and abs(max(one["x"])) >= abs(one["centre"][0])
    assert "step 60: loss" in finding(result)
    json.dumps(result)
    draw(result).savefig("/dev/null", format="png")
