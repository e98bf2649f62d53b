"""Numbers and claims on chain of thought on each side of every bound; what a run without it is told."""

import pytest

from capacity_reasoning.analysis import chain_of_thought
from capacity_reasoning.analysis._losses import capacity_constant
from capacity_reasoning.evaluate import Trained
from common.config import UserError

C6, C8 = chain_of_thought.CLAIMS


def cell(x: float, bridge: float | None = None, value: float | None = None) -> dict:
    """Loss over uniform of whole answers, the bridge, and the final value; three seeds alike."""
    parts = {"bridge": x if bridge is None else bridge, "value": x if value is None else value}
    return {"loss": [12 * x] * 3, "uniform": [12.0] * 3} | {
        name: {"loss": [6 * part] * 3, "uniform": [6.0] * 3} for name, part in parts.items()
    }


def modes(train=0.1, **held_out) -> dict:
    cells = {"train_twohop": cell(train), "first_people": cell(0.15), "second_people": cell(0.12), **held_out}
    return {"seeds": [0, 1, 2], "modes": {"cot": cells}}


@pytest.mark.parametrize(
    ("made", "verdict"),
    [
        (modes(), "reproduced"),
        (modes(relations=cell(0.32)), "reproduced"),
        (modes(relations=cell(0.33)), "contradicted"),
        (modes(relations=cell(0.2, value=0.4)), "contradicted"),
        (modes(relations=cell(0.2, bridge=0.4)), "contradicted"),
        (modes(relations=cell(0.4, value=0.1, bridge=0.1)), "contradicted"),
        (modes(train=0.6), "inconclusive"),
    ],
)
def test_c8_wants_every_held_out_class_as_training_questions(made, verdict):
    assert C8.verdict(C8.values(made)) == verdict


def storage(content: float, dataset: float) -> dict:
    return {"content": [content] * 3, "dataset": [dataset] * 3}


def runs(*cot: tuple[float, float, float], onehop=((1.5, 3.0), (1.7, 2.1), (0.5, 0.6))) -> dict:
    """cot: content, dataset and what two copies need, in bits per parameter; onehop: content and dataset."""
    return {
        "seeds": [0, 1, 2],
        "runs": {
            "cot": {str(n): {"storages": {"one_hop": storage(c, d)}, "two_copies": [t] * 3} for n, (c, d, t) in enumerate(cot)},
            "latent": {"latent": {"storages": {"one_hop": storage(0.8, 1.0), "double": storage(1.6, 2.4)}}},
            "onehop": {str(n): {"storages": {"one_hop": storage(c, d)}} for n, (c, d) in enumerate(onehop)},
        },
    }  # fmt: skip


def test_a_parameter_holds_what_saturated_one_hop_models_hold_on_average():
    rows = [storage(1.5, 3.0), storage(1.7, 2.1), storage(0.5, 0.6)]
    assert capacity_constant(rows) == pytest.approx([1.6] * 3)
    assert capacity_constant([storage(0.5, 0.6)]) == [None] * 3


@pytest.mark.parametrize(
    ("made", "number"),
    [
        (runs((1.1, 1.2, 2.0)), 1.1 / 1.2),
        (runs((1.4, 3.0, 5.0)), 1.4 / 1.6),
        (runs((1.1, 1.2, 2.0), (0.6, 1.2, 2.0)), 0.5),
        (runs((1.2, 1.2, 2.0), (0.1, 0.5, 0.9)), 1.0),
        (runs((0.5, 0.5, 0.9)), None),
        (runs((1.1, 1.2, 2.0), onehop=((0.5, 0.6),)), None),
    ],
)
def test_content_as_one_copy_is_told_of_runs_that_do_not_hold_two_copies(made, number):
    assert chain_of_thought.one_copy(made) == [None if number is None else pytest.approx(number)] * 3


@pytest.mark.parametrize(
    ("content", "verdict"), [(0.97, "reproduced"), (0.95, "contradicted"), (1.49, "reproduced"), (1.51, "contradicted")]
)
def test_c6_wants_what_one_copy_allows(content, verdict):
    made = runs((content, 1.2, 2.0))
    assert C6.verdict(C6.values(made)) == verdict


def test_the_note_tells_of_the_latent_run_under_every_storage():
    assert "one_hop 0.80, double 1.00" in chain_of_thought.beside_latent(runs((1.0, 1.0, 2.0)))
    assert "No one-hop run is saturated" in chain_of_thought.beside_latent(runs((1, 1, 2), onehop=((0.5, 0.6),)))


def test_a_run_without_chain_of_thought_is_none(study_of):
    latent = Trained(study_of("capacity_reasoning") / "latent", "cpu", 1)
    with pytest.raises(UserError, match="--data.cot true"):
        chain_of_thought.analyse(latent, chain_of_thought.Settings(questions=8))
