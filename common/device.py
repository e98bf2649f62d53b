"""Where and how the arithmetic runs: device, precision, threads, named random streams, CUDA graphs."""

import contextlib
import ctypes
import hashlib
import math
import os
import platform
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from common.config import UserError

CPU_INFO, MEMORY_INFO = Path("/proc/cpuinfo"), Path("/proc/meminfo")
PRECISIONS = ("fp32", "tf32", "bf16")


def setup(device: str = "auto", precision: str = "fp32", threads: int = 0) -> torch.device:
    """Device to use, after setting the process's precision and CPU threads.

    device: auto (CUDA if there, else the CPU), cpu, cuda, cuda:1 or mps. MPS must be asked for: it lacks float64, and models
    this small run slower on it. threads: 0 leaves PyTorch's choice.
    Raises UserError for a device that this machine lacks or an unknown precision.
    """
    if precision not in PRECISIONS:
        raise UserError(f"found precision {precision}, expected one of {', '.join(PRECISIONS)}")
    cards = [f"cuda:{number}" for number in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    usable = [*(["cuda"] if cards else []), *cards, *(["mps"] if torch.backends.mps.is_available() else []), "cpu"]
    name = ("cuda" if cards else "cpu") if device == "auto" else device
    if name not in usable:
        raise UserError(f"found no {name} device, expected one of {', '.join(usable)}; mend with: --device cpu")
    if threads:
        torch.set_num_threads(threads)
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    if name.startswith("cuda"):
        torch.cuda.set_device(torch.device(name).index or 0)
        _repeatable_cuda()
    if name == "cpu":
        _keep_memory()
    return torch.device(name)


def _keep_memory() -> None:
    """Let glibc keep freed memory for the next step instead of handing it back: each step would fault its pages in again.

    Worth 10 to 20% of a training step at the sizes here (0.2 to 8 MB a tensor); without glibc nothing happens.
    """
    m_trim_threshold, m_mmap_threshold, gigabyte = -1, -3, 1 << 30
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(m_mmap_threshold, gigabyte)
        libc.mallopt(m_trim_threshold, gigabyte)


def _repeatable_cuda() -> None:
    """Same inputs, same bits: an exact resume needs kernels without races."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.utils.deterministic.fill_uninitialized_memory = False
    torch.use_deterministic_algorithms(True, warn_only=True)


def free_memory(device: torch.device) -> float:
    """Bytes free on the device, as far as the system tells; infinity where it does not."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    found = re.search(r"MemAvailable:\s*(\d+) kB", MEMORY_INFO.read_text()) if MEMORY_INFO.exists() else None
    return int(found[1]) * 1024 if found else math.inf


def describe(device: torch.device) -> str:
    """Name of the hardware behind `device`, for manifests and tables."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    models = re.findall(r"model name\s*: (.*)", CPU_INFO.read_text()) if CPU_INFO.exists() else []
    return f"{(models or [platform.processor() or platform.machine()])[0]}, {os.cpu_count()} cores"


def generator(device: torch.device | str, seed: int, name: str) -> torch.Generator:
    """Random stream called `name` ("init", "data", "evaluation", ...) of `seed`.

    Streams of different names or seeds are independent; the seed is 63 bits of sha256, the same on every machine.
    """
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager:
    """Context in which matrix products run in bfloat16 if `precision` is bf16, and nothing changes otherwise."""
    if precision == "bf16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return contextlib.nullcontext()


def graphed(
    step: Callable[[], object],
    device: torch.device,
    generators: Sequence[torch.Generator] = (),
    warmup: int = 3,
) -> Callable[[], object]:
    """`step` itself off CUDA; on CUDA a callable that does the same work by replaying one recorded graph.

    Every call is one real step: the first `warmup` run eagerly, the next one records and replays, later ones replay.
    `step` takes no arguments and reads and writes tensors that stay in place (learning rate and step count included);
    its Python code does not run in a replay. The tensors it returns are overwritten by the next call: clone what
    you keep. `generators`: every torch.Generator that `step` draws from, so that a replay advances it.
    """
    return GraphedStep(step, generators, warmup) if device.type == "cuda" else step


class GraphedStep:
    """The CUDA side of `graphed`."""

    def __init__(self, step: Callable[[], object], generators: Sequence[torch.Generator], warmup: int):
        self.step, self.generators, self.eager_left = step, generators, warmup
        # Warm-up and capture share one side stream: capture is illegal on the default stream, and autograd's
        # accumulation nodes remember the stream of their first use.
        self.stream = torch.cuda.Stream()
        self.graph = None
        self.output = None

    def __call__(self):
        if self.eager_left > 0:
            self.eager_left -= 1
            return self._eager()
        if self.graph is None:
            self._capture()
        self.graph.replay()
        return self.output

    def _eager(self):
        current = torch.cuda.current_stream()
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream):
            output = self.step()
        current.wait_stream(self.stream)
        return output

    def _capture(self) -> None:
        """Record one step; recording computes nothing, so parameters and random streams stay where they were."""
        self.graph = torch.cuda.CUDAGraph()
        for source in self.generators:
            self.graph.register_generator_state(source)
        with torch.cuda.graph(self.graph, stream=self.stream):
            self.output = self.step()
