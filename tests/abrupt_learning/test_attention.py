"""Scores of attention heads against closed forms and a literal loop; structured masks; the analysis on a smoke run."""

import math
from dataclasses import asdict

import pytest
import torch

from abrupt_learning.analysis.attention_maps import Settings, analyse, batches, draw, finding, strongest, structured
from abrupt_learning.data import MASK, Data, sample
from abrupt_learning.estimators.attention_scores import KINDS, best, chance, head_scores, kinds
from abrupt_learning.estimators.interventions import record
from abrupt_learning.evaluate import Trained
from abrupt_learning.model import Bert, Model

ROWS, COLUMNS = 3, 5
DATA = Data(sizes=[[ROWS, COLUMNS]], rank=1, precision=1, limit=1.0)


def attention_of(layers: int = 2, heads: int = 2, batch: int = 4):
    """Attention (L, B, H, N, N) of a random model on matrices that are not square, and their masks."""
    generator = torch.Generator().manual_seed(0)
    model = Bert(
        Model(hidden_size=16, n_layer=layers, n_head=heads, init_std=0.3), DATA.vocabulary, DATA.cells, generator
    )
    matrices = sample(DATA, batch, generator)
    return record(model, matrices.ids, "attention")["attention"], matrices.observed


def literal_scores(attention, observed, layer: int, head: int) -> dict[str, float]:
    """The scores by their definition, cell by cell."""
    batch, cells = observed.shape
    totals, queries = dict.fromkeys(("row", "column", "self", "entropy"), 0.0), batch * cells
    seen, counts = {True: 0.0, False: 0.0}, {True: 0, False: 0}
    for b in range(batch):
        for q in range(cells):
            kind = bool(observed[b, q])
            counts[kind] += 1
            for k in range(cells):
                a = float(attention[layer, b, head, q, k])
                totals["row"] += a * (q // COLUMNS == k // COLUMNS and q != k)
                totals["column"] += a * (q % COLUMNS == k % COLUMNS and q != k)
                totals["self"] += a * (q == k)
                totals["entropy"] -= a * math.log(a) / math.log(cells)
                seen[kind] += a * bool(observed[b, k])
    means = {name: total / queries for name, total in totals.items()}
    return means | {
        "observed_by_masked": seen[False] / counts[False],
        "observed_by_observed": seen[True] / counts[True],
    }


def test_scores_equal_the_literal_loop():
    attention, observed = attention_of()
    scores = head_scores(attention, observed, COLUMNS)
    for layer in range(2):
        for head in range(2):
            ours = {name: float(score[layer, head]) for name, score in scores.items()}
            assert ours == pytest.approx(literal_scores(attention, observed, layer, head), abs=1e-5)


def test_chance_is_the_share_of_cells():
    observed = torch.tensor([[True] * 10 + [False] * 5]).expand(3, -1)
    assert chance(observed, COLUMNS) == pytest.approx(
        {
            "row": (COLUMNS - 1) / 15,
            "column": (ROWS - 1) / 15,
            "self": 1 / 15,
            "observed_by_masked": 10 / 15,
            "observed_by_observed": 10 / 15,
            "entropy": 1.0,
        }
    )


def planted(observed: torch.Tensor) -> torch.Tensor:
    """One layer of five heads that look at their row, column, themselves, observed cells, and everywhere."""
    cells = observed.shape[1]
    cell = torch.arange(cells)
    other = ~torch.eye(cells, dtype=torch.bool)
    keys = [
        (cell[:, None] // COLUMNS == cell // COLUMNS) & other,
        (cell[:, None] % COLUMNS == cell % COLUMNS) & other,
        ~other,
    ]
    maps = [key.expand(len(observed), -1, -1) for key in keys]
    maps += [observed[:, None, :].expand(-1, cells, -1), torch.ones(len(observed), cells, cells)]
    weights = torch.stack([m.float() for m in maps], 1)[None]
    return weights / weights.sum(-1, keepdim=True)


def test_planted_heads_fall_into_their_groups():
    observed = sample(DATA, 8, torch.Generator().manual_seed(1)).observed
    scores = head_scores(planted(observed), observed, COLUMNS)
    groups = kinds(scores, chance(observed, COLUMNS), threshold=0.25)
    assert {name: group.nonzero()[:, 1].tolist() for name, group in groups.items()} == dict(
        zip(KINDS, ([0], [1], [2], [3], [4]), strict=True)
    )
    assert best(scores) == {"row": (0, 0), "column": (0, 1), "observed": (0, 3)}


def test_every_head_has_one_group():
    attention, observed = attention_of(layers=3, heads=4)
    groups = kinds(head_scores(attention, observed, COLUMNS), chance(observed, COLUMNS), threshold=0.02)
    assert torch.stack(list(groups.values())).sum(0).eq(1).all()


def test_row_mask_is_the_papers_at_7x7():
    observed = structured([7, 7], "row").view(7, 7)
    expected = torch.ones(7, 7, dtype=torch.bool)
    expected[[2, 5]] = False
    expected[2, 0] = expected[5, 4] = True
    assert torch.equal(observed, expected)


def test_column_mask_is_the_transposed_one():
    for m, n in ([7, 7], [4, 6]):
        columns = structured([m, n], "col").view(m, n)
        assert torch.equal(columns, structured([n, m], "row").view(n, m).T)
        assert (columns.sum(0) == 1).sum() == 2


@pytest.mark.parametrize("size", [[2, 2], [3, 5], [4, 4], [6, 6], [7, 7], [10, 12]])
def test_two_rows_show_one_cell_at_every_size(size):
    shown = structured(size, "row").view(size).sum(1).tolist()
    assert sorted(shown) == [1, 1, *[size[1]] * (size[0] - 2)]


def test_structured_batches_hide_the_same_matrices(smoke_run):
    trained = Trained(smoke_run, "cpu", 1)
    tests = batches(trained, Settings(matrices=16))
    for batch in tests.values():
        assert torch.equal(batch.target, tests["none"].target)
        assert torch.equal(batch.ids == MASK, ~batch.observed)


def test_smoke_run_is_looked_at_the_same_way_twice(smoke_run):
    trained, settings = Trained(smoke_run, "cpu", 1), Settings(matrices=16, milestones=["early", "end"])
    first, second = ({"settings": asdict(settings), **analyse(trained, settings)} for _ in range(2))
    assert first == second
    assert len(draw(first).axes) > 4
    assert "chance" in finding(first)
    layer, head = first["heads"][0]["row"]
    assert first["scores"][0]["none"]["end"]["row"][layer][head] == strongest(first, "end", "row")[0]
    assert (smoke_run / "figures/attention_maps_progress.png").exists()
    assert (smoke_run / "figures/attention_maps_masks.png").exists()
