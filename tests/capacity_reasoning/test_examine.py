"""Losses on questions against a literal loop over them, draws of questions, and what a row of metrics tells."""

import numpy as np
import pytest
import torch

from capacity_reasoning import examine
from capacity_reasoning.data import Questions
from capacity_reasoning.examine import MODES, ONE_HOP, Asked, Examiner, ask, measure, stratified
from capacity_reasoning.facts import text
from capacity_reasoning.facts.lists import ATTRIBUTES
from capacity_reasoning.facts.questions import KINDS
from capacity_reasoning.facts.splits import CLASSES
from capacity_reasoning.model import Llama, Model
from common.replicas import Replicas
from tests.capacity_reasoning.tiny import questions_of, settings_of, stream

BOTH = {"mix.orders": [1, 2], "data.N": 30, "splits.first_people": 0.1, "splits.second_people": 0.1}
COT = BOTH | {"data.cot": True, "data.template": "paper"}
NO_SPLITS = {f"splits.{name}": 0 for name in CLASSES[1:]}


def models(questions: list[Questions]) -> Replicas:
    config = Model(d=16, layers=1, init=0.5)
    return Replicas([Llama(config, q.vocabulary, stream(seed)) for seed, q in enumerate(questions)])


def literal(replicas: Replicas, number: int, questions: Questions, asked: Asked) -> np.ndarray:
    """Nats of every question (n,): its text tokenised, all probabilities of its answer, one question at a time."""
    nats, form = [], questions.pieces.form
    for p, (r,), s in zip(*(part.tolist() for part in asked.part(slice(None))), strict=True):
        told = text.question(form, questions.people, p, (r,) if r >= 0 else (), s)
        ids, begin = text.encoded(questions.tokenizer, form, *told)
        places = torch.arange(begin - 1, len(ids) - 1)
        with torch.no_grad():
            logits = replicas._model(replicas.leaves[number])(torch.tensor([ids]), places[None])[0]
        nats.append(-logits.double().log_softmax(-1)[range(len(places)), ids[begin:]].sum().item())
    return np.array(nats)


@pytest.mark.parametrize("changes", [BOTH, COT], ids=["latent", "cot"])
@pytest.mark.parametrize("mode", [ONE_HOP, "train_twohop", "second_people"])
def test_losses_are_those_of_a_literal_loop(changes, mode, monkeypatch):
    monkeypatch.setattr(examine, "ROWS", 97)
    questions = questions_of(changes)
    replicas, asked = models(questions), [ask(q, mode, 250, seed) for seed, q in enumerate(questions)]
    found = measure(replicas, questions, asked)
    for number, (losses, q) in enumerate(zip(found, questions, strict=True)):
        assert losses.nats.dtype == np.float64 and len(losses.nats) == len(asked[number])
        assert losses.nats == pytest.approx(literal(replicas, number, q, asked[number]), rel=1e-5)


def test_seeds_with_different_numbers_of_questions_are_asked_what_each_is_alone(monkeypatch):
    monkeypatch.setattr(examine, "ROWS", 13)
    questions = questions_of(BOTH)
    replicas = models(questions)
    asked = [ask(questions[0], ONE_HOP, 41, 0), ask(questions[1], "train_twohop", 17, 1)]
    found = measure(replicas, questions, asked)
    for number in (0, 1):
        (wanted,) = measure(Replicas([rebuilt(replicas, number)]), [questions[number]], [asked[number]])
        assert found[number].nats.shape == (41 - 24 * number,)
        np.testing.assert_allclose(found[number].kinds, wanted.kinds, rtol=1e-6, atol=1e-6)


def rebuilt(replicas: Replicas, number: int) -> Llama:
    model = Llama(replicas.skeleton.config, replicas.shapes["embedding.weight"][0], stream())
    model.load_state_dict({name: value[number] for name, value in replicas.weights().items()})
    return model


@pytest.mark.parametrize("changes", [BOTH, COT], ids=["latent", "cot"])
def test_kinds_add_up_and_each_subject_has_its_own(changes):
    questions = questions_of(changes)
    for mode in (ONE_HOP, "train_twohop"):
        for found in measure(models(questions), questions, [ask(q, mode, None, 0) for q in questions]):
            assert (found.kinds.sum(1) == found.nats).all() and (found.nats > 0).all()
            bridge = [KINDS.index(f"bridge_{part}") for part in ("first", "middle", "last")]
            told = "data.cot" in changes and mode != ONE_HOP
            assert (found.kinds[:, bridge] > 0).all() if told else (found.kinds[:, bridge] == 0).all()
            assert ((found.kinds[:, KINDS.index("copied")] > 0) == told).all()
            s = found.asked.s.numpy()
            for subject, name in enumerate(ATTRIBUTES):
                assert ((found.kinds[:, KINDS.index(name)] > 0) == (s == subject)).all()
            assert ((found.kinds[:, :3] > 0) == (s >= 4)[:, None]).all()


# Which questions


def test_all_questions_of_a_mode_are_each_asked_once():
    (questions, *_) = questions_of(BOTH)
    found = {}
    for mode in MODES:
        p, chain, s = ask(questions, mode, None, 0).part(slice(None))
        rows = list(zip(p.tolist(), chain[:, 0].tolist(), s.tolist(), strict=True))
        assert len(set(rows)) == len(rows) and ((chain < 0) == (mode == ONE_HOP)).all()
        if mode != ONE_HOP:
            assert (questions.classes[p, chain[:, 0], s] == CLASSES.index(mode)).all()
        found[mode] = rows
    assert len(found.pop(ONE_HOP)) == 30 * 8
    assert sum(map(len, found.values())) == 30 * 4 * 8


@pytest.mark.parametrize("most", [1, 7, 100, 239])
def test_a_draw_has_every_subject_by_its_share_and_depends_on_seed_and_mode_alone(most):
    (questions, *_) = questions_of(BOTH)
    asked = ask(questions, ONE_HOP, most, 3)
    flat = (asked.p * 8 + asked.s).tolist()
    assert len(asked) == most and sorted(set(flat)) == flat
    assert np.abs(np.bincount(asked.s, minlength=8) - most / 8).max() < 1
    again, other = (ask(questions, ONE_HOP, most, seed) for seed in (3, 4))
    assert torch.equal(asked.p, again.p) and torch.equal(asked.s, again.s)
    assert not (torch.equal(asked.p, other.p) and torch.equal(asked.s, other.s))


def test_as_many_as_there_are_is_all_of_them():
    (questions, *_) = questions_of(BOTH)
    for most in (240, 10**6):
        assert torch.equal(ask(questions, ONE_HOP, most, 0).p, ask(questions, ONE_HOP, None, 0).p)


def test_every_question_is_drawn_as_often_as_any_other():
    numbers, draw = np.arange(30), np.random.default_rng(0)
    # Strata of 3, 7 and 20.
    strata = np.repeat([0, 1, 2], [3, 7, 20])[draw.permutation(30)]
    counts, pairs, sizes = np.zeros(30), np.zeros((30, 30)), []
    for _ in range(4000):
        chosen = stratified(numbers, strata, 8, draw)
        assert len(set(chosen.tolist())) == 8 and (np.diff(chosen) > 0).all()
        counts[chosen] += 1
        pairs[np.ix_(chosen, chosen)] += 1
        sizes.append(np.bincount(strata[chosen], minlength=3))
    p = 8 / 30
    assert counts == pytest.approx(4000 * p, abs=5 * (4000 * p * (1 - p)) ** 0.5)
    # Of the largest stratum any two come together, neighbours too.
    largest = np.flatnonzero(strata == 2)
    assert pairs[np.ix_(largest, largest)].min() > 100
    expected = p * np.array([3, 7, 20])
    assert (np.abs(np.array(sizes) - expected) < 1.0001).all()


# A row of metrics


def test_a_row_tells_mean_and_standard_error_of_every_mode_and_the_size_of_the_weights():
    settings, questions = settings_of(BOTH, {"train.evaluation": 50}), questions_of(BOTH)
    replicas = models(questions)
    rows = Examiner(settings, questions, torch.device("cpu")).look(replicas)
    for number, row in enumerate(rows):
        parts = [p.detach().flatten().double() for p in rebuilt(replicas, number).parameters()]
        assert row.pop("weight_rms") == pytest.approx(float(torch.cat(parts).square().mean().sqrt()), rel=1e-5)
        assert set(row) == {name for mode in MODES for name in (mode, f"{mode}_se")}
        for mode in MODES:
            asked = ask(questions[number], mode, 50, settings.seeds[number])
            nats = literal(replicas, number, questions[number], asked)
            assert row[mode] == pytest.approx(nats.mean(), rel=1e-5)
            assert row[f"{mode}_se"] == pytest.approx(nats.std() / len(nats) ** 0.5, rel=1e-4)


@pytest.mark.parametrize(
    ("changes", "modes"),
    [
        ({"mix.orders": [1]}, {ONE_HOP}),
        ({"mix.orders": [2]}, set(CLASSES)),
        ({"mix.orders": [2, 1]} | NO_SPLITS, {ONE_HOP, "train_twohop"}),
        ({"mix.orders": [1, 2]} | NO_SPLITS | {"splits.complete_two_hop": 0.1}, {ONE_HOP, "train_twohop", "complete_two_hop"}),
    ],
    ids=["one hop", "two hops", "nothing held out", "combinations held out"],
)  # fmt: skip
def test_modes_are_those_that_the_run_has(changes, modes):
    changes = BOTH | changes
    examiner = Examiner(settings_of(changes), questions_of(changes), torch.device("cpu"))
    assert set(examiner.asked) == modes


def test_losses_do_not_depend_on_how_many_are_asked_at_a_time(monkeypatch):
    questions = questions_of(COT)
    asked = [ask(q, "train_twohop", None, 0) for q in questions]
    found = {}
    for size in (10**6, 64):
        monkeypatch.setattr(examine, "ROWS", size)
        found[size] = measure(models(questions), questions, asked)
    for whole, part in zip(*found.values(), strict=True):
        np.testing.assert_allclose(whole.kinds, part.kinds, rtol=1e-5, atol=1e-6)
