"""Ablations, patches and hybrids: no-ops, full swaps, and batched variants equal to one at a time."""

from dataclasses import asdict

import pytest
import torch

from abrupt_learning.analysis import ablation, hybrid, patch
from abrupt_learning.analysis.hybrid import PARTS, transplanted
from abrupt_learning.data import Data, from_values, sample
from abrupt_learning.estimators.interventions import ABLATIONS, ablate, predict_variants, record
from abrupt_learning.estimators.interventions import patch as patched
from abrupt_learning.evaluate import Trained
from abrupt_learning.model import Bert, Model, component

DATA = Data(sizes=[[3, 5]], rank=1, precision=1, limit=1.0)
LAYERS, HEADS = 3, 2


def model_of(seed: int = 0) -> Bert:
    config = Model(hidden_size=16, n_layer=LAYERS, n_head=HEADS, init_std=0.5)
    return Bert(config, DATA.vocabulary, DATA.cells, torch.Generator().manual_seed(seed)).requires_grad_(False)


def parameters(model: Bert, part: str) -> set[str]:
    return component(model, PARTS[part])


def matrices(number: int = 6):
    return sample(DATA, number, torch.Generator().manual_seed(7))


def none() -> torch.Tensor:
    return torch.zeros(1, LAYERS, HEADS, dtype=torch.bool)


@pytest.mark.parametrize("kind", ABLATIONS)
def test_ablating_no_head_changes_nothing(kind):
    model, ids = model_of(), matrices().ids
    assert torch.equal(model(ids, ablate(none(), kind)), model(ids, lambda site, layer, value: value))


@pytest.mark.parametrize("kind", ABLATIONS)
def test_one_head_ablated_is_the_model_with_that_map_replaced(kind):
    model, ids = model_of(), matrices().ids
    literal = {
        "uniform": lambda A: torch.full_like(A, 1 / A.shape[-1]),
        "batch_mean": lambda A: A.mean(0).expand_as(A),
        "zero": torch.zeros_like,
    }[kind]

    def by_hand(site: str, layer: int, value: torch.Tensor) -> torch.Tensor:
        if (site, layer) != ("attention", 1):
            return value
        return torch.stack([value[:, 0], literal(value[:, 1])], 1)

    heads = none()
    heads[0, 1, 1] = True
    torch.testing.assert_close(model(ids, ablate(heads, kind)), model(ids, by_hand))
    assert not torch.allclose(model(ids, by_hand), model(ids), atol=1e-4)


def test_uniform_ablation_of_all_heads_leaves_no_position_in_their_output():
    model, ids = model_of(), matrices().ids
    hook, seen = ablate(~none(), "uniform"), []
    model(
        ids, lambda site, layer, value: (value := hook(site, layer, value), site == "heads" and seen.append(value))[0]
    )
    assert len(seen) == LAYERS
    for z in seen:
        torch.testing.assert_close(z, z[:, :, :1].expand_as(z))


def test_batch_mean_of_one_matrix_is_the_intact_model_and_of_many_is_not():
    model, ids = model_of(), matrices().ids
    torch.testing.assert_close(model(ids[:1], ablate(~none(), "batch_mean")), model(ids[:1]))
    assert not torch.allclose(model(ids, ablate(~none(), "batch_mean")), model(ids), atol=1e-4)


@pytest.mark.parametrize("kind", ABLATIONS)
@pytest.mark.parametrize("rows", [1, 13, 1000])
def test_variants_together_equal_one_at_a_time(kind, rows):
    model, ids = model_of(), matrices().ids
    heads = torch.eye(LAYERS * HEADS, dtype=torch.bool).view(-1, LAYERS, HEADS)
    together = predict_variants(model, ids, len(heads), lambda chosen: ablate(heads[chosen], kind), rows)
    alone = torch.stack([model(ids, ablate(one[None], kind)) for one in heads])
    torch.testing.assert_close(together, alone)


def test_patching_oneself_or_nowhere_changes_nothing():
    model, batch = model_of(), matrices()
    own, other = (record(model, ids, "heads")["heads"] for ids in (batch.ids, matrices(12).ids[6:]))
    everywhere, intact = torch.ones_like(batch.observed)[None], model(batch.ids)
    torch.testing.assert_close(model(batch.ids, patched(own, ~none(), everywhere)), intact)
    torch.testing.assert_close(model(batch.ids, patched(other, none(), everywhere)), intact)
    torch.testing.assert_close(model(batch.ids, patched(other, ~none(), ~everywhere)), intact)


def test_all_heads_and_the_embedding_give_the_donors_output_and_heads_alone_do_not():
    model, batch = model_of(), matrices()
    donor = from_values(-batch.target, batch.observed, DATA)
    seen = record(model, donor.ids, "heads", "embedding")
    heads = patched(seen["heads"], ~none(), torch.ones_like(batch.observed)[None])

    def whole(site: str, layer: int, value: torch.Tensor) -> torch.Tensor:
        return seen["embedding"][0] if site == "embedding" else heads(site, layer, value)

    torch.testing.assert_close(model(batch.ids, whole), model(donor.ids))
    assert not torch.allclose(model(batch.ids, heads), model(donor.ids), atol=1e-4)


def test_masked_cells_start_equal_so_their_heads_alone_carry_them_to_the_donor():
    model, batch = model_of(), matrices()
    donor = from_values(-batch.target, batch.observed, DATA)
    seen = record(model, donor.ids, "heads")["heads"]
    output, masked = model(batch.ids, patched(seen, ~none(), ~batch.observed[None])), ~batch.observed
    torch.testing.assert_close(output[masked], model(donor.ids)[masked])


def test_a_patch_in_the_last_layer_stays_at_its_cells():
    model, batch = model_of(), matrices()
    donor = record(model, from_values(-batch.target, batch.observed, DATA).ids, "heads")["heads"]
    heads = none()
    heads[0, -1] = True
    output, intact = model(batch.ids, patched(donor, heads, ~batch.observed[None])), model(batch.ids)
    assert torch.equal(output[batch.observed], intact[batch.observed])
    assert not torch.allclose(output[~batch.observed], intact[~batch.observed], atol=1e-4)


def test_a_pair_shares_its_mask_and_mirrors_its_tokens():
    batch = matrices()
    mirrored = from_values(-batch.target, batch.observed, DATA)
    assert torch.equal(mirrored.observed, batch.observed)
    assert torch.equal(mirrored.ids, torch.where(batch.observed, DATA.vocabulary - batch.ids, 0))


def test_moved_is_0_at_the_start_and_1_at_the_goal():
    start, goal = (torch.randn(4, 15, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    cells = matrices(4).observed
    for share in (0.0, 0.25, 1.0):
        assert patch.moved(start + share * (goal - start), start, goal, cells) == pytest.approx(share, abs=1e-5)


def test_parts_are_the_authors():
    model = model_of()
    every = {name for name, _ in model.named_parameters()}
    assert parameters(model, "att") == {name for name in every if "attention.self" in name}
    assert parameters(model, "mlp") == {name for name in every if "attention" not in name}
    assert parameters(model, "att_full") | parameters(model, "mlp") == every
    finer = [parameters(model, part) for part in ("att_full", "ff_only", "embeddings", "readout")]
    assert sum(map(len, finer)) == len(every) == len(set().union(*finer))


@pytest.mark.parametrize("part", ["att", "mlp", "att_full", "ff_only", "embeddings", "readout"])
def test_a_hybrid_has_the_part_of_one_and_the_rest_of_the_other(part):
    host, donor = model_of(0), model_of(1)
    names = parameters(host, part)
    ids, before = matrices().ids, host(matrices().ids)
    mixed = transplanted(host, donor, names)(ids)
    expected = model_of(0)
    expected.load_state_dict({n: (donor if n in names else host).state_dict()[n] for n in host.state_dict()})
    assert torch.equal(mixed, expected(ids))
    assert not torch.allclose(mixed, before)
    assert torch.equal(transplanted(host, host, names)(ids), before)
    assert torch.equal(host(ids), before)


def test_all_parts_make_the_donor():
    host, donor, ids = model_of(0), model_of(1), matrices().ids
    names = parameters(host, "att_full") | parameters(host, "mlp")
    assert torch.equal(transplanted(host, donor, names)(ids), donor(ids))


@pytest.mark.parametrize(
    ("analysis", "settings"),
    [
        (ablation, ablation.Settings(matrices=16)),
        (patch, patch.Settings(matrices=16)),
        (hybrid, hybrid.Settings(matrices=16)),
    ],
)
def test_smoke_run_gives_the_same_result_twice(smoke_run, analysis, settings):
    trained = Trained(smoke_run, "cpu", 1)
    first, second = ({"settings": asdict(settings), **analysis.analyse(trained, settings)} for _ in range(2))
    assert first == second
    assert analysis.draw(first).axes
    assert analysis.finding(first)


def test_ablation_groups_hold_every_head_of_every_seed_once(smoke_run):
    trained = Trained(smoke_run, "cpu", 1)
    result = ablation.analyse(trained, ablation.Settings(matrices=16, threshold=0.0))
    model = trained.config.model
    for groups in result["groups"]:
        assert sorted(sum(groups.values(), [])) == [
            [la + 1, h + 1] for la in range(model.n_layer) for h in range(model.n_head)
        ]


def test_a_set_without_heads_has_no_numbers(smoke_run):
    trained = Trained(smoke_run, "cpu", 1)
    result = ablation.analyse(trained, ablation.Settings(matrices=16, threshold=0.99))
    assert set(result["ablated"]["uniform"]["row heads"]["loss_masked"]["values"]) == {None}
    assert None not in result["ablated"]["uniform"]["all heads"]["loss_masked"]["values"]
