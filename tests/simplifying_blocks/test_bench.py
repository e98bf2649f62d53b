"""The bench compares like with like: equal attention, equal sizes, bytes and looks counted right. No speed is judged."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from simplifying_blocks import bench, objective, train
from simplifying_blocks.data import Data
from simplifying_blocks.estimators.flops import forward_flops
from simplifying_blocks.losses import IGNORED, cross_entropy
from simplifying_blocks.recipe import Model
from simplifying_blocks.train import Config, Train

CPU = torch.device("cpu")
KEYS = {"name", "ours", "other", "unit", "ratio", "target", "machine_share"}
TINY = Config(
    preset="smoke",
    data=Data(vocabulary=300),
    model=Model(layers=2, d=16, heads=2),
    train=Train(steps=4, batch=4, context=16, evaluate_windows=4, final_windows=4, probe_windows=2, compile="off"),
)


def assert_rows(rows: list[dict], *targets: float | None) -> None:
    assert all(set(row) == KEYS and row["ours"] > 0 and row["other"] > 0 for row in rows)
    assert [row["target"] for row in rows] == list(targets)
    assert len({row["name"] for row in rows}) == len(rows)


@pytest.fixture
def rate(monkeypatch):
    """A machine of 10^9 FLOP/s."""
    monkeypatch.setattr(bench.bench, "matrix_rate", lambda *device, **settings: 1e9)
    return lambda: 1e9


# Like with like


@pytest.mark.parametrize("T", [1, 2, 33])
def test_both_forms_of_shaped_attention_and_their_gradients_agree(T):
    inputs = bench.attention_inputs(T, CPU, torch.float64)
    literal = bench.LiteralAttention(T, dtype=torch.float64)
    torch.testing.assert_close(bench.our_attention(*inputs), literal(*inputs), rtol=1e-10, atol=1e-10)
    ours, other = (bench.both_passes(attend, inputs) for attend in (bench.our_attention, literal))
    torch.testing.assert_close(ours, other, rtol=1e-9, atol=1e-9)


def test_the_gpt2_has_the_parameters_of_pre_ln_and_its_further_biases_and_norms():
    theirs, ours = bench.gpt2(TINY), train.build(TINY, TINY.data.vocabulary, 0)
    assert train.count_parameters(theirs) - train.count_parameters(ours) == 2 * (7 + 2) * 16
    assert sum(p.numel() for p in theirs.parameters() if p.dim() == 2) == sum(
        p.numel() for p in ours.parameters() if p.dim() == 2
    )
    assert theirs.config._attn_implementation == "sdpa" and theirs.lm_head.weight is theirs.transformer.wte.weight


@pytest.mark.parametrize("make", [bench.our_step, bench.gpt2_step])
def test_both_sides_start_at_the_loss_of_a_uniform_guess(make):
    loss, norm = make(TINY, CPU)().tolist()
    assert loss == pytest.approx(math.log(300), abs=0.1) and norm > 0


def test_the_step_timed_is_that_of_training(monkeypatch):
    seen = []
    monkeypatch.setattr(train, "step", lambda settings, learner, team, now: seen.append((settings, now)))
    step = bench.our_step(TINY, CPU)
    step(), step()
    assert seen == [(TINY, 1), (TINY, 2)]


def test_a_step_is_three_forward_passes_over_its_tokens():
    assert bench.step_flops(TINY) == 3 * 4 * 16 * forward_flops(TINY.model, 300, 16)["total"]


def test_a_loss_without_gradients_makes_the_logits_alone():
    hidden, readout = torch.randn(6, 16), torch.randn(300, 16, requires_grad=True)
    targets = torch.tensor([4, IGNORED, 299, 0, IGNORED, 7])
    counts, losses = [], []
    for learns in (False, True):
        with torch.set_grad_enabled(learns), FlopCounterMode(display=False) as counter:
            losses.append(cross_entropy(hidden, readout, targets, chunk=4).item())
        counts.append(counter.get_total_flops())
    assert losses[0] == losses[1] and counts[1] == 3 * counts[0] == 3 * 2 * 6 * 16 * 300


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_the_loss_is_as_exact_as_the_library_at_any_scale_of_logits(scale):
    stream = torch.Generator().manual_seed(0)
    hidden, readout = (torch.randn(n, 16, generator=stream) for n in (64, 300))
    hidden, targets = scale * hidden, torch.randint(300, (64,), generator=stream)
    logits = hidden @ readout.mT
    exact = F.cross_entropy(logits.double(), targets)
    ours, library = (
        abs(loss.double() - exact)
        for loss in (cross_entropy(hidden, readout, targets), F.cross_entropy(logits, targets))
    )
    assert ours <= 4 * library + 1e-6 * exact


# Memory


def test_memory_counts_what_is_held_once_and_no_view():
    def call():
        x = torch.ones(1000)
        y = x + 1
        del x
        return (y.view(10, 100).t() * 2).add_(1)

    with bench.Alive() as alive:
        kept = call()
    assert (alive.most, alive.now) == (8000, 4000)
    del kept
    assert alive.now == 0


def test_memory_counts_what_autograd_keeps():
    weight = torch.ones(1000, requires_grad=True)
    with bench.Alive() as alive:
        # exp keeps its result: three of them, though no name holds two.
        out = weight.exp().exp().exp()
        assert alive.now == alive.most == 12_000
        del out
        assert (alive.now, alive.most) == (0, 12_000)


def test_memory_of_what_was_there_before_does_not_count():
    old = torch.ones(1000)
    assert bench.peak_memory(lambda: old.mul_(2).view(10, 100), CPU) == 0


def test_memory_of_attention_grows_with_T_here_and_with_its_square_there():
    def peak(T, attend):
        return bench.peak_memory(lambda: bench.both_passes(attend, bench.attention_inputs(T, CPU)), CPU)

    ours = [peak(T, bench.our_attention) for T in (128, 256)]
    literal = [peak(T, bench.LiteralAttention(T)) for T in (128, 256)]
    assert ours[1] / ours[0] == pytest.approx(2, abs=0.05)
    assert literal[1] / literal[0] > 3


# Looks


@pytest.mark.parametrize("steps, evaluate, probes", [(6, 2, 3), (7, 3, 2), (5, 9, 5)])
def test_looks_are_those_of_a_run(monkeypatch, steps, evaluate, probes):
    c = replace(
        TINY.train, steps=steps, evaluate_every=evaluate, probe_every=probes, evaluate_windows=3, final_windows=7
    )
    tested, probed = [], []
    monkeypatch.setattr(objective, "test", lambda settings, corpus, model, windows, most: tested.append(most) or 1.0)
    monkeypatch.setattr(objective, "probe", lambda model, ids: probed.append(1) or {})
    text = bench.UniformText(300, 1000)
    text.splits, text.bits_per_byte = ("valid_iid", "valid"), lambda nats, split: nats
    examiner = objective.Examiner(replace(TINY, train=c), text, [SimpleNamespace()], CPU)
    for now in range(steps + 1):
        list(examiner.look(now))
    assert bench.looks(c) == (sum(tested[:-3]), sum(tested[-3:]), len(probed))


# Rows


def test_rows_of_the_steps(rate):
    preln = bench.our_step(TINY, CPU)
    first, second = rows = bench.gpt2_rows(TINY, CPU, preln, rate, 2)
    assert_rows(rows, 1.0, 1.0)
    assert first["machine_share"] == second["machine_share"] == pytest.approx(second["ours"])
    assert second["other"] == 0.5 and second["ratio"] == pytest.approx(2 * second["machine_share"])
    assert first["ours"] * bench.step_flops(TINY) / 64 == pytest.approx(second["ours"] * 1e9)
    row = bench.block_row(TINY, "sas_p", CPU, preln, 2)
    flops = [
        forward_flops(Model(block=block, layers=2, d=16, heads=2), 300, 16)["total"] for block in ("sas_p", "preln")
    ]
    assert_rows([row], None)
    assert row["name"].startswith(f"sas_p step beside Pre-LN's, {flops[0] / flops[1]:.2f} of its FLOP")


def test_rows_beside_the_steps():
    assert_rows(bench.attention_rows(16, CPU, 2, 1.5), None, 1.5)
    assert_rows([bench.evaluation_row(TINY, CPU, 2), bench.tokens_row(2, 0.05, 300)], 1.0, 1.0)


def test_rows_of_a_gpu_are_the_share_and_the_table_of_the_paper(monkeypatch, rate):
    assert (bench.LARGE.precision, bench.LARGE.train.compile) == ("bf16", "on")
    monkeypatch.setattr(bench, "LARGE", replace(TINY, precision="bf16"))
    share, *table = rows = bench.large_rows(CPU, 2)
    assert_rows(rows, 1.0, 1.05, 0.95, 1.09, 1.16, 1.20)
    assert share["ratio"] == pytest.approx(share["machine_share"] / 0.45)
    assert [row["name"].split()[0] for row in table] == list(bench.TABLE_1)
