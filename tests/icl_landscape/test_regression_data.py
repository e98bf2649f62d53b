"""Sequences of the right law, the same for the same stream, and the tokens that a model reads."""

import pytest
import torch

from common.device import generator
from icl_landscape.regression.data import (
    TRUE,
    Data,
    Tasks,
    clean,
    evaluation_batch,
    pretraining_tasks,
    sample,
    sample_stack,
    scale_inputs,
    scale_tasks,
    tokens,
)
from icl_landscape.regression.losses import subsequence_mse, token_losses

LAWS = [Data(), Data(M=5), Data(task=[1, 2, 3, 4])]


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def equal(first, second) -> bool:
    return all(map(torch.equal, first, second))


def test_tokens_are_x_and_y_in_turn():
    x = torch.tensor([[[1.0, 2, 3], [2, 3, 4], [6, 5, 4]]])
    y = torch.tensor([[7.0, 8, 9]])
    expected = [[0, 1, 2, 3], [7, 0, 0, 0], [0, 2, 3, 4], [8, 0, 0, 0], [0, 6, 5, 4], [9, 0, 0, 0]]
    assert tokens(x, y).tolist() == [expected]


def test_tokens_tell_x_and_y_again_and_stacks_are_their_replicas():
    x, y, _ = sample_stack(Data(), [TRUE] * 3, 10, [stream(seed) for seed in range(3)])
    made = tokens(x, y)
    assert made.shape == (3, 10, 16, 5)
    assert equal((made[..., ::2, 1:], made[..., 1::2, 0]), (x, y))
    assert not made[..., ::2, 0].any() and not made[..., 1::2, 1:].any()
    assert torch.equal(made[1], tokens(x[1], y[1]))


@pytest.mark.parametrize("data", LAWS, ids=str)
def test_moments_of_inputs_noise_and_tasks(data):
    tasks = pretraining_tasks(data, 0)
    batch = sample(data, tasks, 40_000, stream())
    noise = batch.y - clean(batch.x, batch.task)
    for values, variance in ((batch.x, 1), (noise, 0.125)):
        assert values.mean() == pytest.approx(0, abs=0.01)
        assert values.var() == pytest.approx(variance, rel=0.02)
    mean = torch.zeros(4) if tasks.table is None else tasks.table.mean(0)
    torch.testing.assert_close(batch.task.mean(0), mean, atol=0.03, rtol=0)
    assert (noise * batch.x[..., 0]).mean() == pytest.approx(0, abs=0.01)


def test_true_tasks_are_standard_normal_and_new_in_each_sequence():
    task = sample(Data(), TRUE, 40_000, stream()).task
    torch.testing.assert_close(task.T.cov(), torch.eye(4), atol=0.05, rtol=0)
    assert len(task.unique(dim=0)) == 40_000


@pytest.mark.parametrize("M", [1, 3, 1000])
def test_finite_sets_are_chosen_from_uniformly(M):
    table = pretraining_tasks(Data(M=M), 0).table
    task = sample(Data(M=M), Tasks(table), 20_000, stream()).task
    chosen = (task[:, None] == table).all(-1) if M < 10 else None
    assert table.shape == (M, 4)
    if chosen is None:
        assert len(task.unique(dim=0)) == M
    else:
        torch.testing.assert_close(chosen.float().mean(0), torch.full((M,), 1 / M), atol=0.02, rtol=0)


def test_a_singleton_is_the_same_task_everywhere():
    data = LAWS[2]
    task = sample(data, pretraining_tasks(data, 3), 50, stream()).task
    assert (task == torch.tensor(data.task)).all()


def test_task_sets_depend_on_the_seed_alone():
    first, again, other = (pretraining_tasks(Data(M=64), seed).table for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


@pytest.mark.parametrize("data", LAWS, ids=str)
def test_same_stream_same_bits_and_a_stack_is_its_replicas(data):
    laws = [pretraining_tasks(data, seed) for seed in range(3)]
    streams, again = ([stream(seed) for seed in range(3)] for _ in range(2))
    for _ in range(2):
        stack = sample_stack(data, laws, 10, streams)
        for seed in range(3):
            alone = sample(data, laws[seed], 10, again[seed])
            assert equal(alone, (part[seed] for part in stack))
    assert not torch.equal(stack.x[0], stack.x[1])


def test_laws_share_inputs_and_noise_of_a_stream():
    batches = [sample(data, pretraining_tasks(data, 0), 10, stream()) for data in LAWS]
    for batch in batches[1:]:
        assert torch.equal(batch.x, batches[0].x)
        noise = [b.y - clean(b.x, b.task) for b in (batch, batches[0])]
        torch.testing.assert_close(*noise, atol=1e-5, rtol=0)


def test_evaluation_is_of_a_stream_of_its_own():
    data = Data()
    batch = evaluation_batch(data, TRUE, 20, "cpu")
    assert equal(batch, evaluation_batch(data, TRUE, 20, "cpu"))
    assert not torch.equal(batch.x, evaluation_batch(data, TRUE, 20, "cpu", 1).x)
    assert not torch.equal(batch.x, sample(data, TRUE, 20, generator("cpu", 0, "data")).x)


@pytest.mark.parametrize("g", [1, 3, 100])
def test_larger_inputs_and_tasks_keep_the_noise(g):
    batch = sample(Data(), TRUE, 100, stream())
    noise = batch.y - clean(batch.x, batch.task)
    inputs, tasks = scale_inputs(batch, g), scale_tasks(batch, g)
    assert equal((inputs.x, inputs.task, tasks.x, tasks.task), (g * batch.x, batch.task, batch.x, g * batch.task))
    for larger in (inputs, tasks):
        torch.testing.assert_close(larger.y - clean(larger.x, larger.task), noise, atol=1e-5 * g, rtol=0)


def test_token_losses_are_means_over_sequences():
    predictions, y = torch.randn(2, 3, 50, 8, generator=stream()).unbind()
    ours = token_losses(predictions, y)
    for replica in range(3):
        for k in range(8):
            errors = [(predictions[replica, b, k] - y[replica, b, k]) ** 2 for b in range(50)]
            torch.testing.assert_close(ours[replica, k], sum(errors) / 50)


def test_subsequence_loss_is_the_mean_over_prefixes():
    losses = torch.rand(3, 8, generator=stream())
    literal = torch.stack([losses[:, :length].mean(1) for length in range(1, 9)]).mean(0)
    torch.testing.assert_close(subsequence_mse(losses), literal)


@pytest.mark.parametrize(
    "settings, message",
    [({"task": [1.0]}, "1 coordinates, expected data.D = 4"), ({"task": [1.0] * 4, "M": 2}, "found data.M 2")],
)
def test_settings_that_contradict_each_other_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Data(**settings)
