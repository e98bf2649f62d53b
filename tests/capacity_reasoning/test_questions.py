"""Questions as tables against their text, packing against a literal loop, and what the sampler asks."""

import numpy as np
import pytest
import torch

from capacity_reasoning.data import Questions, Sampler
from capacity_reasoning.examine import MODES, ONE_HOP, ask
from capacity_reasoning.facts import text
from capacity_reasoning.facts.lists import ATTRIBUTES
from capacity_reasoning.facts.people import NOBODY
from capacity_reasoning.facts.questions import (
    COPIED,
    IGNORED,
    KINDS,
    Rows,
    Written,
    kinds,
    packed,
    rows,
    widest,
    written,
)
from capacity_reasoning.facts.text import Form
from capacity_reasoning.losses import objective, token_losses
from capacity_reasoning.model import Llama, Model
from capacity_reasoning.train import State, curriculum
from tests.capacity_reasoning.tiny import FORMS, questions_of, settings_of, stream, tables_of, tokenizer_of

TWO = {"mix.orders": [1, 2], "mix.hop_ratio": 1.0}


def random_tuples(people, number: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Questions of one, two and three hops, as many of each: p (n,), chain (n, 2), s (n,)."""
    draw = np.random.default_rng(seed)
    chain = draw.integers(people.R, size=(number, 2))
    chain[draw.integers(3, size=number)[:, None] <= np.arange(2)] = -1
    sizes = (draw.integers(most, size=number) for most in (people.N, people.S))
    p, s = map(torch.from_numpy, sizes)
    return p, torch.from_numpy(chain), s


def hops(row: torch.Tensor) -> tuple[int, ...]:
    return tuple(relation for relation in row.tolist() if relation >= 0)


# Text


def sentence(form: Form, chain: tuple[int, ...], subject: int) -> str:
    """The text of a question about person 0, its names and values put as letters."""
    people, _, _ = tables_of(form)
    asked, answer = text.question(form, people, 0, chain, subject)
    at = [0]
    for relation in chain:
        at.append(int(people.relations[at[-1], relation]))
    told = form.join([*asked, "|", *answer])
    for letter, person in zip("ABC", at, strict=False):
        told = told.replace(form.join([people.name(person)]), letter)
    return told.replace(form.join([people.value(at[-1], subject)]), "X")


@pytest.mark.parametrize(
    ("cot", "chain", "subject", "expected"),
    [
        (False, (), 3, "<|endoftext|> Question: What was A's employer? Answer:| X"),
        (False, (), 6, "<|endoftext|> Question: What was A's best friend? Answer:| X"),
        (False, (3,), 0, "<|endoftext|> Question: What was A's worst enemy's birth date? Answer:| X"),
        (False, (0, 9), 1, "<|endoftext|> Question: What was A's parent's business partner's birth city? Answer:| X"),
        (True, (), 3, "<|endoftext|> Question: What was A's employer? Answer:| X"),
        (True, (2,), 2, "<|endoftext|> Question: What was A's best friend's university? Answer:| A's best friend is B, "
         "their university is X"),
        (True, (0, 11), 3, "<|endoftext|> Question: What was A's parent's mentor's employer? Answer:| A's parent is B, "
         "their mentor is C, their employer is X"),
    ],
)  # fmt: skip
def test_the_paper_s_sentences(cot, chain, subject, expected):
    assert sentence(Form("paper", cot), chain, subject) == expected


def test_compact_questions_are_the_same_without_small_words():
    cot = Form("compact", True, True)
    people, _, _ = tables_of(cot)
    first, bridge = (people.name(person) for person in (0, people.relations[0, 2]))
    value = people.value(people.relations[0, 2], 3).replace(" ", "_")
    asked, answer = text.question(cot, people, 0, (2,), 3)
    assert cot.join(asked) == f"{first} best_friend employer"
    assert cot.join(answer) == f"{first} best_friend {bridge} employer {value}"
    asked, answer = text.question(Form("compact"), people, 0, (2,), 3)
    assert "".join(asked) == f" {first} best friend employer"
    assert "".join(answer) == f" {people.value(people.relations[0, 2], 3)}"


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_tables_are_the_tokens_of_the_whole_text(form):
    people, pieces, facts = tables_of(form)
    p, chain, s = random_tuples(people, 3000)
    found, tokenizer = written(pieces, facts, p, chain, s), tokenizer_of(form)
    split = 0
    for number in range(3000):
        question = text.question(form, people, int(p[number]), hops(chain[number]), int(s[number]))
        ids, asked = text.encoded(tokenizer, form, *question)
        assert found.tokens[number, : len(ids)].tolist() == ids
        assert (int(found.asked[number]), int(found.length[number])) == (asked, len(ids))
        split += len(ids) > len(question[0]) + len(question[1])
    assert not found.tokens[torch.arange(found.tokens.shape[1]) >= found.length[:, None]].any()
    # A piece is a token of the word tokenizer, and several of most BPEs' questions.
    assert split == 0 if form.words else split > 2500
    assert tokenizer.token_to_id("<unk>") not in found.tokens


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_targets_are_the_answer_s_tokens_read_at_the_place_before_each(form):
    people, pieces, facts = tables_of(form)
    questions = written(pieces, facts, *random_tuples(people, 200))
    told = rows(questions)
    assert float(told.questions) == 200
    for number in range(200):
        asked, length = int(questions.asked[number]), int(questions.length[number])
        answer, real = questions.tokens[number, asked:length], told.targets[number] != IGNORED
        assert torch.equal(told.targets[number][real], answer)
        assert told.where[number][real].tolist() == list(range(asked - 1, length - 1))
    # The last token is asked, never shown: the row ends before the longest question does.
    assert told.tokens.shape[1] == int(questions.length.max()) - 1
    assert told.where.max() < told.tokens.shape[1]


def literal_kinds(form: Form, people, p: int, chain: tuple[int, ...], s: int) -> list[str]:
    """A kind for each piece of an answer."""
    final = [ATTRIBUTES[s]] if s < 4 else ["first", "middle", "last"]
    if not form.cot or not chain:
        return final
    bridge = ["bridge_first", "bridge_middle", "bridge_last"]
    # "X Y Z's friend is", then ", their friend is" and ", their employer is".
    first, later = (6, 3) if form.template == "paper" else (4, 1)
    return ["copied"] * first + (bridge + ["copied"] * later) * len(chain) + final


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_kinds_are_those_of_the_pieces_and_cover_every_token_of_an_answer(form):
    people, pieces, facts = tables_of(form)
    p, chain, s = random_tuples(people, 300)
    found, targets = kinds(pieces, facts, p, chain, s), rows(written(pieces, facts, p, chain, s)).targets
    assert torch.equal(found == IGNORED, targets == IGNORED)
    tokenizer, seen = tokenizer_of(form), set()
    for number in range(300):
        who, along, subject = int(p[number]), hops(chain[number]), int(s[number])
        _, answer = text.question(form, people, who, along, subject)
        of_pieces = literal_kinds(form, people, who, along, subject)
        sizes = [len(tokenizer.encode(form.join([piece]), add_special_tokens=False).ids) for piece in answer]
        expected = [kind for kind, size in zip(of_pieces, sizes, strict=True) for _ in range(size)]
        assert [KINDS[kind] for kind in found[number].tolist() if kind != IGNORED] == expected
        seen.update(expected)
    assert seen == (set(KINDS) if form.cot else set(KINDS[:COPIED]))


# Packing


def literal_windows(each: Written, context: int, per_window: int):
    """Token by token: tokens and targets of every window, and how many questions are whole."""
    for first in range(0, len(each.length), per_window):
        ids, asks, whole = [], [], 0
        for number in range(first, first + per_window):
            length, asked = int(each.length[number]), int(each.asked[number])
            fits = len(ids) + length <= context + 1
            ids += each.tokens[number, :length].tolist()
            asks += [place >= asked and fits for place in range(length)]
            whole += fits
        ids, asks = ids + [0] * (context + 1), asks + [False] * (context + 1)
        targets = [ids[place] if asks[place] else IGNORED for place in range(1, context + 1)]
        yield ids[:context], targets, whole


@pytest.mark.parametrize(("context", "per_window"), [(64, 1), (64, 3), (100, 7), (512, 34), (512, 5)])
@pytest.mark.parametrize("form", [Form(), Form(cot=True), Form("compact", False, True)], ids=str)
def test_packed_windows_are_the_literal_ones(form, context, per_window):
    people, pieces, facts = tables_of(form)
    each = written(pieces, facts, *random_tuples(people, 6 * per_window))
    found = packed(each, context, per_window, steps=2)
    wholes = []
    for number, (tokens, targets, whole) in enumerate(literal_windows(each, context, per_window)):
        assert found.tokens[number].tolist() == tokens
        assert found.targets[number].tolist() == targets
        wholes.append(whole)
    assert found.questions.tolist() == [sum(wholes[:3]), sum(wholes[3:])]
    assert found.where.tolist() == [list(range(context))] * 6


def test_a_question_of_exactly_a_window_is_asked_and_one_token_more_is_not():
    tokens = torch.arange(1, 11).repeat(2, 1)
    each = Written(tokens, torch.tensor([4, 4]), torch.tensor([9, 10]))
    told = packed(each, 8, 1)
    assert told.targets.tolist() == [[IGNORED] * 3 + [5, 6, 7, 8, 9], [IGNORED] * 8]
    assert float(told.questions) == 1


def model_of(vocabulary: int) -> Llama:
    return Llama(Model(d=16, layers=2, init=0.3), vocabulary, stream(3)).double()


def test_a_window_of_one_question_has_the_loss_of_its_row():
    people, pieces, facts = tables_of(Form())
    each = written(pieces, facts, *random_tuples(people, 20))
    model = model_of(tokenizer_of(Form()).get_vocab_size())
    by_row, by_window = objective(model, *rows(each))[0], objective(model, *packed(each, 100, 1))[0]
    assert by_row > 1
    torch.testing.assert_close(by_row, by_window.squeeze(), rtol=1e-6, atol=0)


def test_a_row_sees_itself_alone_and_a_packed_question_those_before_it():
    people, pieces, facts = tables_of(Form())
    p, chain, s = random_tuples(people, 3)
    others = (p + 1) % people.N
    others[2] = p[2]
    model = model_of(tokenizer_of(Form()).get_vocab_size())

    def last(who: torch.Tensor, pack: bool) -> torch.Tensor:
        each = written(pieces, facts, who, chain, s)
        told = packed(each, 200, 3) if pack else rows(each)
        losses = token_losses(model(told.tokens, told.where), told.targets)
        answer = int(each.length[2] - each.asked[2])
        return losses[0][told.targets[0] != IGNORED][-answer:] if pack else losses[2][:answer]

    torch.testing.assert_close(last(p, False), last(others, False), rtol=1e-6, atol=1e-6)
    assert (last(p, True) - last(others, True)).abs().max() > 1e-3


# What is asked


def test_bipartite_classic_never_asks_about_a_relation_that_is_not_there():
    (questions, *_) = questions_of(TWO, {"data.relations": "bipartite_classic", "data.N": 60})
    people = questions.people
    assert (people.relations == NOBODY).sum() == 60
    drawn = questions.sample(50_000, 0.5, stream())
    held = [ask(questions, mode, None, 0) for mode in MODES]
    assert len(held[0]) == 60 * 8 - 60
    for p, chain, s in (drawn, *(one.part(slice(None)) for one in held)):
        r = chain[:, 0].numpy()
        there = r >= 0
        at = np.where(there, people.relations[p, r], p)
        assert (at != NOBODY).all() and (people.answers[at, s] != NOBODY).all()


def test_no_held_out_tuple_is_sampled():
    (questions, *_) = questions_of(TWO, {"data.N": 100})
    p, chain, s = questions.sample(100_000, 1.0, stream())
    assert (questions.classes[p, chain[:, 0], s] == 0).all()
    assert len(np.unique(questions.classes)) == 8
    # Each of 2000 or so is asked 40 times or more on average, none at all with probability 1e-14.
    flat = np.unique((p.numpy() * 4 + chain[:, 0].numpy()) * 8 + s.numpy())
    assert len(flat) == (questions.classes == 0).sum()


@pytest.mark.parametrize("ratio", [0.1, 1.0])
def test_shares_of_hops_people_and_subjects(ratio):
    (questions, *_) = questions_of(TWO, {"mix.hop_ratio": ratio})
    share, number = 1 / (1 + ratio), 100_000
    assert settings_of(TWO, {"mix.hop_ratio": ratio}).mix.two_hop == share
    p, chain, s = questions.sample(number, share, stream())
    two = (chain[:, 0] >= 0).numpy()
    assert two.mean() == pytest.approx(share, abs=5 * (share * (1 - share) / number) ** 0.5)
    for values, kinds_there in ((p.numpy()[~two], 40), (s.numpy()[~two], 8)):
        expected = (~two).sum() / kinds_there
        assert np.bincount(values, minlength=kinds_there) == pytest.approx(expected, abs=5 * expected**0.5)


def test_one_hop_runs_ask_one_hop_alone():
    (questions, *_) = questions_of()
    assert questions.classes is None and len(questions.trained) == 0
    assert (questions.sample(1000, 0.0, stream())[1] == -1).all()


# The sampler


def assert_equal(first, second) -> None:
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


@pytest.mark.parametrize(
    "changes", [{}, {"data.template": "paper", "data.packing": "causal"}, {"data.backend": "text"}], ids=str
)
def test_a_batch_depends_on_seed_and_step_alone(changes, monkeypatch):
    monkeypatch.setattr("capacity_reasoning.data.CHUNK", 64 if "data.packing" not in changes else 64 * 34)
    settings, questions = settings_of(TWO, changes), questions_of(TWO, changes)
    walked, jumped = Sampler(settings, questions), Sampler(settings, questions)
    share = [0.5, 0.5]
    batches = [walked.draw(step, share) for step in range(1, 21)]
    assert walked.steps == 8
    for step in (20, 3, 9, 17):
        assert_equal(jumped.draw(step, share), batches[step - 1])
    flat = [batch.tokens[seed].flatten().tolist() for batch in batches for seed in (0, 1)]
    assert len({tuple(row) for row in flat}) == 40
    alone = Sampler(settings_of(TWO, changes, {"seeds": [1]}), questions[1:]).draw(9, [0.5])
    targets = batches[8].targets[1]
    assert torch.equal(alone.targets[0][alone.targets[0] != IGNORED], targets[targets != IGNORED])


def test_batches_have_their_size_and_number_of_questions():
    settings, questions = settings_of(TWO), questions_of(TWO)
    batch = Sampler(settings, questions).draw(5, [0.5, 0.5])
    assert batch.tokens.shape[:2] == (2, 8) and batch.questions.tolist() == [8.0, 8.0]
    causal = {"data.packing": "causal", "data.context": 64}
    batch = Sampler(settings_of(TWO, causal), questions_of(TWO, causal)).draw(5, [0.5, 0.5])
    assert batch.tokens.shape == (2, 8, 64)
    # Questions of 4 to 8 tokens: 8 to 16 fit into each window.
    assert all(8 * 8 <= number <= 8 * 16 for number in batch.questions.tolist())


def every(questions: Questions) -> tuple[set, set]:
    """Rows of all one-hop and all two-hop training questions of a seed, see `as_tuples`."""
    both = []
    for p, chain, s in (ask(questions, ONE_HOP, None, 0).part(slice(None)), questions.split(questions.trained)):
        both.append(as_tuples(questions.write(p, chain, s)))
    return set(both[0]), set(both[1])


def as_tuples(told) -> list[tuple]:
    """The tokens of every question and of its answer."""
    return [
        (tuple(tokens[: where[0] + 1]), tuple(target for target in targets if target != IGNORED))
        for tokens, where, targets in zip(*(part.tolist() for part in told[:3]), strict=True)
    ]


def of_each(batch: Rows) -> list[list[tuple]]:
    """The same of the rows of every seed."""
    return [as_tuples(Rows(*(part[seed] for part in batch))) for seed in range(len(batch.tokens))]


def test_batches_out_of_text_are_of_the_same_questions():
    changes = {"data.backend": "text", "train.batch": 2000}
    settings, questions = settings_of(TWO, changes), questions_of(TWO, changes)
    batch = Sampler(settings, questions).draw(1, [0.5, 0.0])
    one, two = every(questions[0])
    found, second = of_each(batch)
    assert set(found) <= one | two
    share = np.mean([row in two for row in found])
    assert share == pytest.approx(0.5, abs=5 * (0.25 / 2000) ** 0.5)
    assert set(second) <= every(questions[1])[0]


def test_a_curriculum_holds_two_hops_back_until_one_hop_is_learnt():
    changes = TWO | {"mix.until_onehop": 1.0}
    settings, questions = settings_of(changes), questions_of(changes)
    state = State.start(settings, questions, torch.device("cpu"))
    sampler = Sampler(settings, questions)
    assert state.two_hop == [0.0, 0.0]
    assert all(
        set(told) <= every(q)[0] for told, q in zip(of_each(sampler.draw(1, [0.0, 0.0])), questions, strict=True)
    )
    curriculum(settings, state, [{"train_onehop": 1.0}, {"train_onehop": 0.9}])
    assert state.two_hop == [0.0, 0.5]
    curriculum(settings, state, [{"train_onehop": 1.0}, {"train_onehop": 3.0}])
    assert state.two_hop == [0.0, 0.5]
    first, second = zip(*(of_each(sampler.draw(step, state.two_hop)) for step in range(1, 9)), strict=True)
    assert {row for told in first for row in told} <= every(questions[0])[0]
    assert {row for told in second for row in told} & every(questions[1])[1]
    assert State.start(settings_of(TWO), questions, torch.device("cpu")).two_hop == [0.5, 0.5]


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("hops", [1, 2])
def test_the_widest_row_is_wide_enough_and_no_more_than_its_pieces_could_be(form, hops):
    people, pieces, facts = tables_of(form)
    p, s = (grid.flatten() for grid in torch.meshgrid(torch.arange(people.N), torch.arange(people.S), indexing="ij"))
    chain = torch.full((len(p), 1), -1) if hops == 1 else (p % people.R)[:, None]
    each = rows(written(pieces, facts, p, chain, s))
    T, A = widest(pieces, facts, hops)
    assert each.tokens.shape[1] <= T <= 2 * each.tokens.shape[1] and each.where.shape[1] <= A <= 2 * each.where.shape[1]
    if form.words and hops == 1:
        assert (each.tokens.shape[1], each.where.shape[1]) == (T, A)
