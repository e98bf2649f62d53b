"""Named random streams, precision, threads; a graphed step does each step once."""

import contextlib
import hashlib
from types import SimpleNamespace

import pytest
import torch

from common import device
from common.config import UserError

CPU = torch.device("cpu")
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.fixture(autouse=True)
def settings_restored():
    """Threads, TF32 and determinism as they were before the test."""
    threads = torch.get_num_threads()
    tf32 = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    yield
    torch.set_num_threads(threads)
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = tf32
    if torch.are_deterministic_algorithms_enabled():
        torch.use_deterministic_algorithms(False)


def draw(seed: int, name: str, count: int = 1000) -> torch.Tensor:
    return torch.randn(count, generator=device.generator(CPU, seed, name))


def test_same_seed_and_name_same_stream():
    assert torch.equal(draw(3, "data"), draw(3, "data"))


def test_other_names_and_seeds_give_independent_streams():
    streams = torch.stack([draw(seed, name) for seed in range(4) for name in ("init", "data", "evaluation")])
    correlation = torch.corrcoef(streams) - torch.eye(len(streams))
    # Five standard deviations of the correlation of 1000 independent pairs.
    assert correlation.abs().max() < 5 / 1000**0.5


def test_seed_and_name_do_not_run_together():
    assert not torch.equal(draw(1, "2/data"), draw(12, "data"))
    assert not torch.equal(draw(1, "1"), draw(11, ""))


def test_the_seed_is_63_bits_of_sha256_the_same_for_ever():
    seeds = [device.generator(CPU, seed, "data").initial_seed() for seed in range(64)]
    assert seeds[0] == int.from_bytes(hashlib.sha256(b"0/data").digest()[:8], "big") // 2
    assert seeds[0] == 736872305540241488
    assert len(set(seeds)) == 64 and 2**61 < max(seeds) < 2**63


def test_auto_takes_a_device_that_works():
    chosen = device.setup("auto")
    assert torch.ones(2, device=chosen).sum().item() == 2
    assert (chosen.type == "cuda") is torch.cuda.is_available()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_missing_device_names_the_mend():
    with pytest.raises(UserError, match="found no cuda device, expected .*cpu.*--device cpu"):
        device.setup("cuda")


@pytest.mark.parametrize("wrong", [{"device": "tpu"}, {"precision": "fp8"}])
def test_an_unknown_setting_is_a_users_mistake(wrong):
    with pytest.raises(UserError, match=f"found .*{next(iter(wrong.values()))}"):
        device.setup(**wrong)


@pytest.mark.parametrize("precision, tf32", [("fp32", False), ("tf32", True), ("bf16", False)])
def test_tf32_is_on_only_when_asked_for(precision, tf32):
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = not tf32
    device.setup("cpu", precision)
    assert torch.backends.cuda.matmul.allow_tf32 is torch.backends.cudnn.allow_tf32 is tf32


def test_threads_are_set_or_left():
    device.setup("cpu", threads=1)
    assert torch.get_num_threads() == 1
    device.setup("cpu", threads=0)
    assert torch.get_num_threads() == 1


@pytest.mark.parametrize("precision", device.PRECISIONS)
def test_autocast_acts_for_bf16_only(precision):
    with device.autocast(CPU, precision):
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype is (torch.bfloat16 if precision == "bf16" else torch.float32)


def test_the_hardware_has_a_name():
    assert "cores" in device.describe(CPU)


def test_off_cuda_a_graphed_step_is_the_step():
    def step():
        return 1

    assert device.graphed(step, CPU) is step


@pytest.mark.parametrize("warmup", [0, 1, 3])
def test_each_call_is_one_real_step(monkeypatch, warmup):
    """With recording and replay played by Python: the step computes once a call, eagerly, then only in replays."""
    events, recording = [], []

    class Graph:
        def register_generator_state(self, stream):
            events.append("register")

        def replay(self):
            events.append("step")

    @contextlib.contextmanager
    def graph(graph, stream):
        recording.append(True)
        yield
        recording.clear()

    stream = SimpleNamespace(wait_stream=lambda other: None)
    cuda = {"Stream": lambda: stream, "current_stream": lambda: stream, "stream": contextlib.nullcontext}
    for name, fake in (cuda | {"CUDAGraph": Graph, "graph": graph}).items():
        monkeypatch.setattr(torch.cuda, name, fake)
    step = device.graphed(lambda: events.append("record" if recording else "step"), torch.device("cuda"), ["g"], warmup)
    for _ in range(6):
        step()
    assert events == ["step"] * warmup + ["register", "record"] + ["step"] * (6 - warmup)


def sgd_on_noise(where: torch.device, graph: bool) -> torch.Tensor:
    """Losses and final weights of ten steps of a small regression whose data a named stream draws."""
    stream = device.generator(where, 0, "data")
    weights = torch.zeros(16, device=where, requires_grad=True)
    rate = torch.tensor(0.1, device=where)
    losses = []

    def step():
        X = torch.randn(32, 16, device=where, generator=stream)
        loss = (X @ weights - X.sum(1)).square().mean()
        (gradient,) = torch.autograd.grad(loss, weights)
        with torch.no_grad():
            weights.sub_(rate * gradient)
            rate.mul_(0.9)
        return loss.detach()

    step = device.graphed(step, where, generators=[stream]) if graph else step
    losses = [step().clone() for _ in range(10)]
    return torch.cat([torch.stack(losses), weights.detach(), torch.randn(4, device=where, generator=stream)])


@needs_cuda
@pytest.mark.gpu
def test_replays_equal_eager_steps_bit_for_bit():
    where = device.setup("cuda")
    assert torch.equal(sgd_on_noise(where, graph=True), sgd_on_noise(where, graph=False))
