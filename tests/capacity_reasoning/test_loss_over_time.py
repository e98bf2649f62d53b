"""Losses along training against those of the single checkpoints."""

import numpy as np
import pytest

from capacity_reasoning.analysis import loss_over_time
from capacity_reasoning.evaluate import Trained


@pytest.fixture(scope="module")
def latent(study_of) -> Trained:
    return Trained(study_of("capacity_reasoning") / "latent", "cpu", 1)


@pytest.fixture(scope="module")
def analysed(latent) -> dict:
    return loss_over_time.analyse(latent, loss_over_time.Settings(points=3, bins=5))


def test_a_point_is_the_loss_of_all_questions_at_its_checkpoint(latent, analysed):
    assert analysed["steps"][-1] == latent.steps[-1] and set(analysed["steps"]) <= set(latent.steps)
    for mode in ("train_onehop", "complete_two_hop"):
        for place, step in enumerate(analysed["steps"]):
            each = latent.losses(mode, step=step)
            cell = analysed["modes"][mode]
            assert [row[place] for row in cell["loss"]] == pytest.approx([one.nats.mean() for one in each])
            for seed, one in enumerate(each):
                mine = one.nats[one.asked.s.numpy() == 5]
                assert cell["by_subject"][seed][place][5] == pytest.approx(mine.mean())


def test_a_subject_without_questions_has_no_loss(analysed):
    rows = np.array(analysed["modes"]["second_attributes"]["by_subject"], float)
    assert (np.isfinite(rows).sum(2) == 1).all()
    assert rows.shape == (3, 3, 8)


def test_the_histogram_counts_every_question_of_the_last_checkpoint(latent, analysed):
    told = analysed["modes"]["train_twohop"]["histogram"]
    assert sum(told["counts"]) == sum(len(asked) for asked in latent.ask("train_twohop"))
    nats = np.concatenate([one.nats for one in latent.losses("train_twohop")])
    assert told["edges"][-1] == pytest.approx(nats.max()) and len(told["counts"]) == 5
    assert loss_over_time.histogram(nats, 0) is None


@pytest.mark.parametrize("bins", [0, 5])
def test_histograms_are_drawn_below_the_curves_where_there_are_any(analysed, bins):
    modes = {
        mode: {**cell, "histogram": cell["histogram"] if bins else None} for mode, cell in analysed["modes"].items()
    }
    shown = [ax for ax in loss_over_time.draw({**analysed, "modes": modes}).axes if ax.get_visible()]
    assert len(shown) == len(modes) * (2 if bins else 1)
