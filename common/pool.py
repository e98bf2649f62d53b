"""Commands run by a pool of processes here, or one by one on Slurm; one that fails does not stop the others."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from common.run import Run, UserError

# What an interrupted process may take to write its last checkpoint.
GRACE_SECONDS = 30


@dataclass(frozen=True)
class Job:
    """A command and its log. folder: of the training run it makes, if any. after: names of the jobs it waits for."""

    name: str
    command: tuple[str, ...]
    log: Path
    folder: Path | None = None
    after: tuple[str, ...] = ()

    @property
    def finished(self) -> bool:
        """True for a training run that reached its end, now or earlier."""
        return self.folder is not None and Run(self.folder).finished


class Process(subprocess.Popen):
    """The process of a job, writing to the job's log; it leads a group, so that a signal reaches all it started."""

    def __init__(self, job: Job, threads: int):
        command = [sys.executable if word == "python" else word for word in job.command]
        settings = {"OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1"}
        job.log.parent.mkdir(parents=True, exist_ok=True)
        with open(job.log, "w") as log:
            super().__init__(
                command, stdout=log, stderr=subprocess.STDOUT, env=os.environ | settings, start_new_session=True
            )

    def stop(self, number: int) -> None:
        """Send a signal to the whole group, which may be gone already."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)


class SlurmProcess:
    """A job on Slurm, seen as a process."""

    def __init__(self, submitted):
        self.submitted = submitted

    def poll(self) -> int | None:
        """Exit code; 1 where Slurm ended it; None while it waits or runs."""
        if not self.submitted.done():
            return None
        return 1 if self.submitted.exception() else self.submitted.result()

    def wait(self, seconds: float) -> None:
        """Nothing: Slurm itself sees a cancelled job to its end."""

    def stop(self, number: int) -> None:
        """Cancel it, whatever the signal."""
        self.submitted.cancel()


def slurm(folder: Path, threads: int, settings: dict, cluster: str = "slurm") -> Callable[[Job], SlurmProcess]:
    """A function that starts a job on Slurm. folder: for submitit's files. settings: submitit's, as timeout_min."""
    try:
        import submitit

        executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
        executor.update_parameters(**{"cpus_per_task": threads} | settings)
    except ImportError:
        raise UserError("found no submitit, expected it for --slurm; mend with: pip install submitit") from None
    except (NameError, RuntimeError) as error:
        raise UserError(f"slurm: {' '.join(str(error).split())}") from None
    return lambda job: SlurmProcess(executor.submit(_execute, job, threads))


def run(todo: list[Job], done: list[Job], start: Callable, workers: int) -> dict[str, int | None]:
    """Exit code of every job by name; None for one left out because a job it waits for failed.

    start: job -> Process or SlurmProcess. workers: how many at once. An interrupt stops all that run.
    """
    codes, waiting, running = dict.fromkeys((job.name for job in done), 0), list(todo), {}
    try:
        while waiting or running:
            for job in [job for job in waiting if codes.keys() >= set(job.after)]:
                if any(codes[name] != 0 for name in job.after):
                    codes[job.name] = None
                    waiting.remove(job)
                    print(f"{job.name}: left out, it waits for one that failed", flush=True)
                elif len(running) < workers:
                    running[job] = start(job), time.monotonic()
                    waiting.remove(job)
            time.sleep(0.05)
            for job, (process, began) in list(running.items()):
                if (code := process.poll()) is not None:
                    codes[job.name] = code
                    del running[job]
                    print(_line(job, code, time.monotonic() - began), flush=True)
    finally:
        _stop([process for process, _ in running.values()])
    return {job.name: codes[job.name] for job in todo}


def _execute(job: Job, threads: int) -> int:
    return Process(job, threads).wait()


def _line(job: Job, code: int, seconds: float) -> str:
    if code == 0:
        return f"{job.name}: done in {seconds:.1f} s"
    last = job.log.read_text(errors="replace").strip().rpartition("\n")[2] if job.log.exists() else ""
    return f"{job.name}: exit {code} after {seconds:.1f} s, see {job.log}: {last}"


def _stop(processes: list) -> None:
    """Ask all to end, give them time for their last checkpoints, kill what is left."""
    for process in processes:
        process.stop(signal.SIGTERM)
    deadline = time.monotonic() + GRACE_SECONDS
    try:
        for process in processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
    finally:
        for process in processes:
            process.stop(signal.SIGKILL)
