"""Groups against the model's names; what moves and what stays; the experiment on a run of a few steps."""

import json

import pytest

from common.config import UserError
from icl_landscape.analysis._llc import measure, with_sampling
from icl_landscape.analysis.restricted import Settings, analyse, draw, finding, groups_of, patterns, spelled
from icl_landscape.evaluate import Trained
from icl_landscape.sgmcmc.settings import Sampling, selected

BLOCK = ["norm1.weight", "norm1.bias", "attention.qkv.weight", "attention.output.weight", "norm2.weight", "norm2.bias"]
BLOCK += ["fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"]
ENDS = ["token.weight", "position.weight", "norm.weight", "norm.bias", "unembedding.weight", "unembedding.bias"]
NAMES = ENDS[:2] + [f"blocks.{layer}.{name}" for layer in (0, 1) for name in BLOCK] + ENDS[2:]


def moving(group):
    return selected(NAMES, *patterns(group, groups_of(2, True), NAMES))


@pytest.fixture(scope="module")
def trained(study_of):
    return Trained(study_of("icl_landscape") / "main", "cpu", 1)


def test_the_names_are_the_model_s(trained):
    assert sorted(NAMES) == sorted(name for name, _ in trained.model(0, 0).named_parameters())


def test_groups_are_what_they_say():
    assert moving("embeddings") == ENDS[:2] and moving("unembedding") == ENDS[4:]
    assert moving("norms") == [name for name in NAMES if "norm" in name] and len(moving("norms")) == 10
    assert moving("unembedding norm") == ["norm.weight", "norm.bias"]
    assert moving("mlp norm 1") == ["blocks.1.norm2.weight", "blocks.1.norm2.bias"]
    assert moving("attention 0") == ["blocks.0.attention.qkv.weight", "blocks.0.attention.output.weight"]
    assert moving("mlps") == [name for name in NAMES if "fc" in name] and moving("block 1") == NAMES[12:22]
    assert moving("all") == NAMES and moving("blocks.0.fc1.*") == ["blocks.0.fc1.weight", "blocks.0.fc1.bias"]


def test_a_group_and_what_is_left_without_it_are_the_whole():
    for group in groups_of(2, True):
        assert sorted([*moving(group), *moving(f"without {group}")]) == sorted(NAMES)


def test_every_group_is_spelled_out_once():
    named = groups_of(2, True)
    assert spelled(["mlps", "every group"], named) == ["mlps", "all", *(name for name in named if name != "mlps")]
    assert spelled(["without every group"], named) == [f"without {name}" for name in named]
    assert "norms" not in groups_of(2, False) and len(groups_of(3, True)) == len(named) + 5


@pytest.mark.parametrize("group", ["bloks.*", "without all", "without nothing", "norm"])
def test_a_group_of_nothing_is_refused(group):
    with pytest.raises(UserError, match=r"found no weights in the group .* expected one of all, embedding"):
        moving(group)


def test_the_experiment_on_a_run(trained):
    sampling = Sampling(chains=2, draws=5, batch=4, reference="paired", gamma=500.0)
    settings = Settings(groups=["all", "norms", "without norms"], at=[0, 60], seeds=1, sharpness=0, sampling=sampling)
    result = analyse(trained, settings)
    groups = result["groups"]
    assert (
        groups["norms"]["trained"] == [name for name in NAMES if "norm" in name]
        and groups["norms"]["parameters"] == 640
    )
    assert groups["all"]["parameters"] == 51_717 == 640 + groups["without norms"]["parameters"]
    alone = measure(trained, with_sampling(settings, include=["**norm*.*"]), trained.seeds[0], [60])
    assert groups["norms"]["llc"][0][1] == float(alone.estimate.mean[0])
    # |w - w*| is that of fewer weights, which all have the same noise a step.
    assert 0 < float(alone.trace.distance[-1, 0]) < 0.2 * groups["all"]["distance"][0][1] * 25
    assert "norms" in finding(result)
    json.dumps(result)
    draw(result).savefig("/dev/null", format="png")
