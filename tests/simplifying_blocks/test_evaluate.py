"""Reading a run back: curves and layers as they were logged, models as they were saved, wrong questions; figures of runs."""

import json
import math
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from common.config import UserError
from common.plain import plain
from simplifying_blocks.analysis import _compare, blocks, gain_ratios
from simplifying_blocks.analysis.variants import DEEP
from simplifying_blocks.data import Corpus
from simplifying_blocks.evaluate import Trained
from simplifying_blocks.tokens import Windows
from tests.papers import record

SEEDS, LAYERS = [0, 1, 2], 2


@pytest.fixture(scope="module")
def study(study_of) -> Path:
    return study_of("simplifying_blocks")


@pytest.fixture(scope="module")
def trained(study) -> Trained:
    return Trained(study / "main", "cpu", 1)


def opened(study: Path, name: str) -> Trained:
    return Trained(study / name, "cpu", 1)


def logged(run: Trained, key: str) -> dict[int, list[tuple[int, float]]]:
    """Seed -> (step, value) wherever metrics.jsonl has the key, in its order."""
    rows = [row for row in record(run.run.path) if key in row]
    return {seed: [(row["step"], row[key]) for row in rows if row["seed"] == seed] for seed in run.seeds}


def rewritten(study: Path, folder: Path, change, name: str = "main") -> Trained:
    """A copy of a run, of whose rows in metrics.jsonl `change` has changed some in place."""
    path = folder / "smoke" / name
    shutil.copytree(study / name, path)
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        change(row)
    (path / "metrics.jsonl").write_text("".join(json.dumps(plain(row)) + "\n" for row in rows))
    return Trained(path, "cpu", 1)


# Curves and layers


@pytest.mark.parametrize("key", ["loss", "valid_iid", "lr", "rms/2"])
def test_a_curve_is_what_was_logged(trained, key):
    steps, values = trained.curve(key)
    assert values.shape == (len(SEEDS), len(steps)) and len(steps) > 3
    for seed, row in zip(SEEDS, values, strict=True):
        assert list(zip(steps, row, strict=True)) == logged(trained, key)[seed]


def test_seeds_stand_in_the_order_of_the_config(study, tmp_path):
    run = rewritten(study, tmp_path, lambda row: row.update(seed={0: 7, 1: 5, 2: 6}[row["seed"]]))
    run.config.seeds = [7, 5, 6]
    assert np.array_equal(run.curve("valid_iid")[1], opened(study, "main").curve("valid_iid")[1])


def test_a_seed_that_diverged_has_gaps_and_the_others_none(study, tmp_path):
    def lose(row):
        if row["seed"] == 1 and row["step"] >= 30:
            row.update({key: None for key in row if key not in ("step", "seed", "time")})

    lost, whole = rewritten(study, tmp_path, lose), opened(study, "main")
    for key in ("valid_iid", "loss", "attention_entropy/1"):
        (steps, values), (all_steps, before) = lost.curve(key), whole.curve(key)
        assert np.array_equal(steps, all_steps)
        assert np.array_equal(values[[0, 2]], before[[0, 2]])
        assert np.array_equal(np.isnan(values[1]), steps >= 30)
    assert math.isnan(lost.final()[1]) and lost.final()[::2] == whole.final()[::2]
    cell = _compare.ending(lost)
    assert math.isnan(cell["final"]["values"][1]) and math.isnan(cell["final"]["mean"])
    result = plain({"runs": {"lost": cell, "whole": _compare.ending(whole)}})
    assert [math.isnan(gap) for gap in _compare.gap(result, "lost", "whole")] == [False, True, False]


def test_layers_are_curves_side_by_side(trained):
    for name, count in (("attention_entropy", LAYERS), ("rms", LAYERS + 1)):
        steps, values = trained.layers(name)
        assert values.shape == (len(SEEDS), len(steps), count) and np.isfinite(values).all()
        for layer in range(count):
            for seed in SEEDS:
                assert list(zip(steps, values[seed, :, layer], strict=True)) == logged(trained, f"{name}/{layer}")[seed]


def test_a_layer_without_a_diagnostic_is_not_a_number(study):
    """SAS trains V in its first block only."""
    steps, values = opened(study, "sas").layers("ratio_V")
    assert values.shape == (len(SEEDS), len(steps), LAYERS)
    assert np.isfinite(values[:, :, 0]).all() and np.isnan(values[:, :, 1]).all()


def test_ratios_of_the_result_are_sizes_of_those_logged(study, tmp_path):
    def turn(row):
        row.update({key: -value for key, value in row.items() if key.startswith("ratio_V")})

    run = rewritten(study, tmp_path, turn, "skipless")
    result = gain_ratios.analyse(run, gain_ratios.Settings())
    for part in "VP":
        assert np.array_equal(np.asarray(result[part]), np.abs(run.layers(f"ratio_{part}")[1]))
    first = opened(study, "skipless").layers("ratio_V")[1]
    assert np.array_equal(np.asarray(result["V"]), np.abs(first)) and result["final"]["values"] == run.final()


# One run


def test_the_end_is_the_last_that_was_logged(trained):
    for key in ("final", "valid_iid", "loss", "bits_per_byte"):
        assert trained.final(key) == [logged(trained, key)[seed][-1][1] for seed in SEEDS]
    assert trained.final() == trained.final("final") != trained.final("valid_iid")


def test_a_run_that_was_stopped_has_no_end_to_compare(study, tmp_path):
    run = rewritten(study, tmp_path, lambda row: row.pop("final", None))
    with pytest.raises(UserError, match="found no final"):
        _compare.ending(run)


def test_a_step_is_timed_without_what_stands_between_and_per_seed(study, tmp_path):
    """As if every step took 0.3 s of all seeds, and an evaluation, at every second row of train loss, seven."""

    def time(row):
        looks = (row["step"] - ("loss" in row)) // 10
        row["time"] = 1e9 + 0.3 * row["step"] + 7.0 * looks + 1e-3 * row["seed"]

    assert rewritten(study, tmp_path, time).seconds_per_step == pytest.approx(0.3 / len(SEEDS))


def test_a_run_of_one_row_is_not_timed(study, tmp_path):
    def keep_last(row):
        if row["step"] < 40:
            row.pop("loss", None)

    run = rewritten(study, tmp_path, keep_last)
    assert math.isnan(run.seconds_per_step) and plain(_compare.ending(run))["seconds"] is None


def test_parameters_are_those_of_a_model(study):
    for name in ("main", "sas_p"):
        run = opened(study, name)
        assert run.parameters == sum(parameter.numel() for parameter in run.model(1).parameters())


@pytest.mark.parametrize("seed", SEEDS)
def test_a_model_has_the_weights_that_were_saved(trained, seed):
    for step in (None, 10):
        saved = trained.checkpoints.weights(step or 40)
        model = trained.model(seed, step)
        assert model.state_dict().keys() == saved.keys()
        assert all(torch.equal(value, saved[name][seed]) for name, value in model.state_dict().items())
        assert not model.training and not any(parameter.requires_grad for parameter in model.parameters())


def loss_of(run: Trained, seed: int, step: int, most: int) -> float:
    """Mean cross-entropy of a model on held-out windows, all at once and by the library's function."""
    ids = next(run.corpus.windows("valid_iid", run.config.train.context).in_order(most, most))
    logits = run.model(seed, step)(ids[:, :-1])
    return float(F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()))


@pytest.mark.parametrize("name", ["main", "sas", "skipless"])
def test_a_model_read_back_has_the_loss_of_the_record(study, name):
    run = opened(study, name)
    c, (steps, losses) = run.config.train, run.curve("valid_iid")
    for seed in SEEDS:
        found = {step: loss_of(run, seed, step, c.evaluate_windows) for step in run.steps if step in steps}
        assert found and found == pytest.approx({s: losses[seed][list(steps).index(s)] for s in found}, rel=1e-5)
        assert run.final()[seed] == pytest.approx(loss_of(run, seed, c.steps, c.final_windows), rel=1e-5)
    assert len({*run.final()}) == len(SEEDS)


def test_others_are_runs_of_the_study_beside_this_one(trained, study):
    runs = trained.others(["sas", "skipless"])
    assert [run.run.path for run in runs.values()] == [study / name for name in runs] and [*runs] == [
        "main",
        "sas",
        "skipless",
    ]
    assert runs["main"] is trained and runs["sas"].config.model.block == "sas"
    assert [*opened(study, "sas").others(["main"])] == ["sas", "main"]


def test_the_corpus_is_the_text_of_the_run(trained):
    assert isinstance(trained.corpus, Corpus) and isinstance(trained.corpus.windows("valid_iid", 8), Windows)
    digests = {row["corpus"] for row in record(trained.run.path) if "corpus" in row}
    assert digests == {trained.corpus.digest}


def test_a_text_that_has_changed_is_told(study, tmp_path):
    run = rewritten(study, tmp_path, lambda row: "corpus" in row and row.update(corpus="0" * 64))
    with pytest.raises(UserError, match="expected 000000000000 as in the run"):
        assert run.corpus


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda run: run.curve("perplexity"), "found no perplexity in .*metrics.jsonl, expected .*--run"),
        (lambda run: run.final("perplexity"), "found no perplexity"),
        (lambda run: run.layers("ratio_V"), "found no ratio_V in .*main, whose block has none; give another --run"),
        (lambda run: run.layers("ratio"), "found no ratio in"),
        (lambda run: run.model(7), r"found no seed 7 in .*main, expected one of \[0, 1, 2\]"),
        (lambda run: run.model(0, 11), "no checkpoint of step 11"),
        (lambda run: run.others(["sas", "nowhere"]), "found no run at .*nowhere"),
        (lambda run: gain_ratios.analyse(run, gain_ratios.Settings()), "found no ratio_V"),
    ],
)
def test_wrong_questions_are_told(trained, ask, words):
    with pytest.raises(UserError, match=words) as error:
        ask(trained)
    assert len(str(error.value).splitlines()) <= 2


# Comparisons


def test_a_comparison_has_each_run_with_its_own_end_and_settings(trained):
    result = _compare.compare(trained, ["sas", "sas_p"])
    assert [*result["runs"]] == ["main", "sas", "sas_p"]
    for name, cell in result["runs"].items():
        run = trained if name == "main" else trained.sibling(name)
        c = run.config.train
        assert (cell["block"], cell["steps"]) == (run.config.model.block, c.steps)
        assert cell["tokens"] == c.steps * c.batch * c.context and cell["parameters"] == run.parameters
        assert cell["final"]["values"] == run.final() and cell["train"]["values"] == run.final("loss")
        assert np.array_equal(cell["curve"], run.curve("valid_iid")[1]) and cell["evaluated"][-1] == c.steps
        bits = [loss / math.log(2) / run.corpus.bytes_per_token("valid_iid") for loss in run.final()]
        assert cell["bits_per_byte"]["values"] == pytest.approx(bits)
        assert ("packages" in cell) == ("valid" in run.corpus.splits)
        assert "packages" not in cell or cell["packages"]["values"] == run.final("packages")
    gaps = [a - b for a, b in zip(trained.sibling("sas").final(), trained.final(), strict=True)]
    assert _compare.gap(result, "sas", "main") == gaps


def copies(trained: Trained, names: list[str], **changes) -> dict:
    """The result of a comparison, of which every run is a copy of one."""
    return {"runs": {name: _compare.ending(trained) | changes for name in names}}


TWO, ELEVEN = ["main", "sas"], ["main", *(f"{depth}_{block}" for depth in ("shallow", "deep") for block in DEEP)]


@pytest.mark.parametrize("names", [TWO, ELEVEN], ids=len)
@pytest.mark.parametrize("draw", [_compare.draw_comparison, blocks.draw])
def test_few_and_many_runs_are_drawn_without_a_warning(trained, names, draw):
    result = copies(trained, names)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = draw(result)
        figure.draw_without_rendering()
    *lines, dots = figure.axes
    told = [_compare.called(name) for name in names]
    assert [text.get_text() for text in lines[0].get_legend().get_texts()] == told
    assert [label.get_text() for label in dots.get_xticklabels()] == told
    for ax in lines:
        shown = [line for line in ax.get_lines() if line.get_label() in told]
        assert len({line.get_color() for line in shown}) == len(names)
        assert all(len(line.get_xdata()) == len(trained.curve("valid_iid")[0]) - 1 for line in shown)
    assert sum(len(points.get_offsets()) for points in dots.collections if points.get_offsets().shape[0] > 1) == len(
        SEEDS
    ) * len(names)


@pytest.mark.parametrize("seconds", [math.nan, None])
def test_a_run_that_was_not_timed_is_drawn_by_step_only(trained, seconds):
    result = copies(trained, TWO)
    result["runs"]["sas"]["seconds"] = seconds
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = blocks.draw(result)
        figure.draw_without_rendering()
    by_step, by_second = ({line.get_label() for line in ax.get_lines()} for ax in figure.axes[:2])
    assert {"Pre-LN", "SAS"} <= by_step and "Pre-LN" in by_second and "SAS" not in by_second


def test_a_block_keeps_its_colour_and_no_two_runs_share_one(trained):
    known = {name: {"block": name} for name in ("preln", "sas", "vskipinit")}
    assert _compare.colors(known) == {name: _compare.COLORS[name] for name in known}
    assert len({*_compare.COLORS.values()}) == len(_compare.COLORS)
    for count in (2, 7, 8, 11):
        runs = {str(number): {"block": "sas"} for number in range(count)}
        assert len({*_compare.colors(runs).values()}) == count


def test_every_run_is_told_with_its_mean(trained):
    result = _compare.compare(trained, ["sas"])
    line = blocks.finding(result)
    assert (
        f"Pre-LN {np.mean(trained.final()):.3f}" in line and f"SAS {result['runs']['sas']['final']['mean']:.3f}" in line
    )
