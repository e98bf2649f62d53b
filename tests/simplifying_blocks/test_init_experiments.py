"""Experiments that need no training: signal propagation, identity at the start, parameters and speed; and their verdicts."""

import pytest
import torch

from common.experiment import over_seeds
from simplifying_blocks.analysis import identity_at_init, parameters, signal_propagation
from simplifying_blocks.estimators.flops import forward_flops
from simplifying_blocks.evaluate import Trained
from simplifying_blocks.model import Transformer
from simplifying_blocks.recipe import BLOCKS, Model
from tests.simplifying_blocks.judging import assert_every_bound_counts, judged

SMALL = {"d": 32, "context": 32, "vocabulary": 200}


@pytest.fixture(scope="module")
def trained(study_of) -> Trained:
    return Trained(study_of("simplifying_blocks") / "main", "cpu", 1)


@pytest.fixture(scope="module")
def propagation(trained) -> dict:
    return signal_propagation.analyse(trained, signal_propagation.Settings(depths=[3, 8], **SMALL))


@pytest.fixture(scope="module")
def start(trained) -> dict:
    return identity_at_init.analyse(trained, identity_at_init.Settings(depths=[1, 4], **SMALL))


@pytest.fixture(scope="module")
def speed(trained) -> dict:
    settings = parameters.Settings(blocks=[*parameters.THROUGHPUT], rounds=2, repeats=3)
    return parameters.analyse(trained, settings)


# Signal propagation


def test_tokens_become_alike_without_skip_and_not_with_shaped_attention(propagation):
    for cells in propagation["depths"].values():
        naive = cells["naive"]["last"]["values"]
        for case in signal_propagation.KEEP:
            assert all(b < 0.5 * a for a, b in zip(naive, cells[case]["last"]["values"], strict=True))


def test_a_curve_has_a_point_per_block_and_ends_at_the_last_cosine(trained, propagation):
    for depth, cells in propagation["depths"].items():
        for cell in cells.values():
            assert len(cell["cosine"]) == int(depth) and cell["cosine"][-1] == cell["last"]
            assert all(1 <= value <= SMALL["d"] for value in cell["kurtosis"]["values"])
            assert len(cell["last"]["values"]) == len(trained.seeds)


def test_seeds_are_different_models(propagation):
    assert len(set(propagation["depths"]["8"]["preln"]["last"]["values"])) == 3


def made_up(first: float, naive: float, shaped: float) -> dict:
    """A result of one deep model; a shallow one that would be judged otherwise stands beside it."""

    def cells(first, naive, shaped):
        flat = {case: {"cosine": [0.0, shaped], "last": shaped} for case in signal_propagation.CASES}
        return over_seeds([flat | {"naive": {"cosine": [first, naive], "last": naive}}] * 3)

    return {"depths": {"18": cells(0.5, 0.5, 0.5), "72": cells(first, naive, shaped)}}


@pytest.mark.parametrize(
    "numbers, verdict",
    [
        ((0.7, 0.999, 0.01), "reproduced"),
        ((0.7, 0.98, 0.01), "contradicted"),
        ((0.95, 0.999, 0.01), "contradicted"),
        ((0.7, 0.999, 0.2), "contradicted"),
    ],
)
def test_rank_collapse_is_judged_at_the_deepest(numbers, verdict):
    assert judged("C22", made_up(*numbers)) == verdict


def test_the_most_alike_of_the_shaped_blocks_counts():
    for case in signal_propagation.KEEP:
        result = made_up(0.7, 0.999, 0.01)
        result["depths"]["72"][case] = over_seeds([{"cosine": [0.0, 0.3], "last": 0.3}] * 3)
        assert judged("C22", result) == "contradicted"


# Identity at the start


def test_the_start_is_what_the_paper_says(start):
    assert judged("C21", start) == "reproduced"


def test_a_moved_gain_is_no_identity():
    settings = identity_at_init.Settings(**SMALL)
    ids = torch.randint(200, (2, 32), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        model = identity_at_init.build(settings, "sas", 2, 0)
        assert identity_at_init.moved(model, ids)["difference"] < 1e-12
        shifted = identity_at_init.build(settings, "sas", 2, 0, alpha=1.01)
        assert identity_at_init.moved(shifted, ids)["difference"] == pytest.approx(0.01)


def test_epsilon_is_all_that_parts_sas_and_sas_p(start):
    for cell in start["depths"].values():
        apart, tiny = (cell[key]["values"] for key in ("apart", "apart_tiny_eps"))
        assert all(0 < b < 1e-3 * a for a, b in zip(apart, tiny, strict=True))


def test_each_bound_of_the_identity_counts():
    numbers = {
        "SAS from identity": 1e-16,
        "SAS from SAS-P": 1e-7,
        "the same without epsilon": 1e-16,
        "V-SkipInit from a rotation": 1e-7,
        "V-SkipInit from identity": 1.4,
        "Pre-LN from identity": 1.0,
    }
    assert_every_bound_counts("C21", {name: [value] * 3 for name, value in numbers.items()})


@pytest.mark.parametrize("module", [identity_at_init, signal_propagation])
def test_a_width_that_heads_do_not_divide_is_refused(module):
    with pytest.raises(ValueError, match="multiple of 4"):
        module.Settings(d=30)


# Parameters and speed


@pytest.mark.parametrize("block", BLOCKS)
def test_counts_are_those_of_a_model_that_was_built(block):
    sizes, vocabulary, length = {"layers": 2, "d": 16, "heads": 4}, 23, 12
    row = parameters.counted(Model(**sizes), vocabulary, length)[block]
    config = Model(block=block, **sizes)
    built = Transformer(config, vocabulary, length)
    assert row["parameters"] == sum(parameter.numel() for parameter in built.parameters())
    assert row["flops"] == forward_flops(config, vocabulary, length)["total"]


def test_a_block_keeps_sizes_and_brings_its_own_settings():
    other = parameters.as_block(Model(block="op", layers=6, d=32, heads=2, act="gelu", beta_SA=0.5), "sas")
    assert other == Model(block="sas", layers=6, d=32, heads=2, act="gelu")


def test_the_paper_s_savings_are_exact(speed):
    assert judged("C13", speed) == "reproduced"
    decoder, bert = (speed["counts"][shape] for shape in ("decoder", "bert"))
    # 2 d^2 less a block, but for the first block's V; what is left are vectors and gains.
    for cells, layers in ((decoder, 18), (bert, 16)):
        fewer = cells["preln"]["parameters"] - cells["sas_p"]["parameters"]
        assert fewer == pytest.approx((2 * layers - 1) * 768**2, rel=2e-3)
    assert decoder["preln"]["saved"] == 0 and decoder["sas_p"]["flops_saved"] == pytest.approx(12.2, abs=0.1)


@pytest.mark.parametrize(
    "saved, verdict", [((12.4, 15.3), "reproduced"), ((0, 15.3), "contradicted"), ((12.4, 0), "contradicted")]
)
def test_savings_are_judged(saved, verdict):
    counts = {shape: {"sas_p": {"saved": value}} for shape, value in zip(("decoder", "bert"), saved, strict=True)}
    assert judged("C13", {"counts": counts}) == verdict


def test_each_bound_of_the_savings_counts():
    assert_every_bound_counts("C13", {"% fewer, 18 blocks": [12.4], "% fewer, BERT": [15.3]})


def test_every_block_of_the_table_is_timed_against_preln(speed):
    assert list(speed["speed"]) == list(parameters.THROUGHPUT)
    for row in speed["speed"].values():
        assert row["ratios"] == [b / a for a, b in zip(row["seconds"], row["preln_seconds"], strict=True)]
        assert row["ratio"] == sorted(row["ratios"])[1] and min(row["seconds"]) > 0
    assert speed["speed"]["parallel"]["flop_ratio"] == 1 < speed["speed"]["sas"]["flop_ratio"]


def timing(**changes) -> dict:
    """The paper's own ratios, but for changes."""
    ratios = parameters.THROUGHPUT | changes
    return {"speed": {block: {"ratios": [value] * 3, "flop_ratio": 1.0} for block, value in ratios.items()}}


@pytest.mark.parametrize(
    "changes, verdict",
    [
        ({}, "reproduced"),
        ({"sas": 0.99}, "contradicted"),
        ({"sas_p": 1.08}, "contradicted"),
        ({"sas_p_nonorm": 1.15}, "contradicted"),
        ({"vskipinit": 1.01}, "contradicted"),
    ],
)
def test_the_order_of_the_table_is_judged(changes, verdict):
    assert judged("C14", timing(**changes)) == verdict


@pytest.mark.parametrize(
    "module, name", [(signal_propagation, "propagation"), (identity_at_init, "start"), (parameters, "speed")]
)
def test_results_are_drawn_and_told(module, name, request):
    result = request.getfixturevalue(name)
    assert module.draw(result).axes and module.finding(result)
