"""Losses beside uniform ones against literal sums; the hops inside held-out combinations; the claim around its bounds."""

import numpy as np
import pytest

from capacity_reasoning.analysis import _losses, generalisation
from capacity_reasoning.evaluate import Trained
from capacity_reasoning.facts.questions import KINDS

C7 = generalisation.CLAIMS[0]
SETTINGS = generalisation.Settings(questions=0, bins=4)


@pytest.fixture(scope="module")
def latent(study_of) -> Trained:
    return Trained(study_of("capacity_reasoning") / "latent", "cpu", 1)


@pytest.fixture(scope="module")
def cot(study_of) -> Trained:
    return Trained(study_of("capacity_reasoning") / "cot", "cpu", 1)


@pytest.fixture(scope="module")
def analysed(latent) -> dict:
    return generalisation.analyse(latent, SETTINGS)


def test_the_uniform_loss_is_that_of_the_questions_asked(latent, analysed):
    for mode in ("second_attributes", "complete_two_hop"):
        for seed, asked in enumerate(latent.ask(mode)):
            each = [np.log(60) if s >= 4 else np.log(8) for s in asked.s.tolist()]
            assert analysed["modes"][mode]["uniform"][seed] == pytest.approx(np.mean(each))


def test_subjects_and_kinds_of_tokens_add_up_to_the_loss(latent, analysed):
    for mode, cell in analysed["modes"].items():
        for seed, asked in enumerate(latent.ask(mode)):
            shares = np.bincount(asked.s.numpy(), minlength=8) / len(asked)
            rows = zip(shares, cell["by_subject"][seed], strict=True)
            assert sum(share * loss for share, loss in rows if loss is not None) == pytest.approx(cell["loss"][seed])
            assert sum(values[seed] for values in cell["by_kind"].values()) == pytest.approx(cell["loss"][seed])
            assert cell["value"] == {"loss": pytest.approx(cell["loss"]), "uniform": pytest.approx(cell["uniform"])}


def test_with_chain_of_thought_the_uniform_answer_has_a_bridge_and_the_value_has_none(cot):
    told = _losses.tell(cot, "complete_two_hop", None)
    assert np.subtract(told["uniform"], told["value"]["uniform"]) == pytest.approx(np.log(60))
    bridge = sum(np.array(told["by_kind"][kind]) for kind in KINDS if kind.startswith("bridge"))
    assert told["bridge"]["loss"] == pytest.approx(bridge)
    whole = np.array(told["value"]["loss"]) + bridge + np.array(told["by_kind"].get("copied", [0.0] * 3))
    assert told["loss"] == pytest.approx(whole)


def test_the_hops_of_a_combination_are_who_and_then_what(latent):
    asked = latent.ask("complete_two_hop")
    for one, first, second, q in zip(
        asked, *generalisation.hops(latent, asked).values(), latent.questions, strict=True
    ):
        people = q.people
        for row in range(0, len(one), 17):
            p, r, s = int(one.p[row]), int(one.chain[row, 0]), int(one.s[row])
            assert (int(first.p[row]), int(first.s[row])) == (p, 4 + r)
            assert (int(second.p[row]), int(second.s[row])) == (people.relations[p, r], s)
        assert (first.chain == -1).all() and (second.chain == -1).all()


def test_every_combination_is_in_the_histogram(latent, analysed):
    told = analysed["combinations"]
    assert np.sum(told["histogram"]["counts"]) == sum(len(asked) for asked in latent.ask("complete_two_hop"))
    assert all(-1 <= value <= 1 for values in told["correlation"].values() for value in values)


def test_a_correlation_is_of_ranks_and_none_where_nothing_varies():
    x = np.array([1.0, 2.0, 3.0, 4.0])
    assert generalisation._correlation(x, np.exp(x)) == pytest.approx(1)
    assert generalisation._correlation(x, -(x**3)) == pytest.approx(-1)
    assert generalisation._correlation(np.ones(4), x) is None


def made_up(train=0.1, combination=0.2, **components: float) -> dict:
    """Of three seeds alike: loss over uniform by mode."""
    modes = {"train_twohop": train, "complete_two_hop": combination}
    modes |= dict.fromkeys(generalisation.COMPONENTS, 1.1) | components
    return {
        "seeds": [0, 1, 2],
        "modes": {mode: {"loss": [6.0 * x] * 3, "uniform": [6.0] * 3} for mode, x in modes.items()},
    }


def test_the_lag_is_the_part_of_what_training_questions_gained_that_is_lost():
    made = made_up(train=0.2, combination=0.6)
    assert C7.values(made)["lag of new combinations"] == pytest.approx([0.5] * 3)


@pytest.mark.parametrize(
    ("made", "verdict"),
    [
        (made_up(), "reproduced"),
        (made_up(train=0.4, combination=0.54), "reproduced"),
        (made_up(train=0.4, combination=0.56), "contradicted"),
        (made_up(combination=1.0), "contradicted"),
        *((made_up(**{mode: 0.89}), "contradicted") for mode in generalisation.COMPONENTS),
        *((made_up(**{mode: 0.91}), "reproduced") for mode in generalisation.COMPONENTS),
        (made_up(train=0.51, combination=0.51), "inconclusive"),
        (made_up(train=0.51, first_people=0.2), "inconclusive"),
    ],
)
def test_c7_wants_combinations_as_training_and_every_new_component_at_chance(made, verdict):
    assert C7.verdict(C7.values(made)) == verdict
