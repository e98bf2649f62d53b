"""Commands run by a pool of processes here, or one by one on Slurm; one that fails does not stop the others."""

import contextlib
import ctypes
import fcntl
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Self

from common.config import EXIT_INTERRUPTED, EXIT_MISTAKE, UserError
from common.plain import make_folder
from common.run import Run

# What an interrupted process may take to write its last checkpoint.
GRACE_SECONDS = 30
# How long a run is waited for that another process writes: one that is about to end, as its sweep has been killed.
WAIT_SECONDS = 120
ATTEMPT, RESUME = "===== ", "--resume=true"
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


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

    @property
    def current(self) -> Self:
        """The job as it is to be started now: a training run that has begun is resumed."""
        begun = self.folder is not None and self.folder.exists() and RESUME not in self.command
        return replace(self, command=(*self.command, RESUME)) if begun else self

    @property
    def locked(self) -> bool:
        """Whether a living process writes to its run, as `Run` keeps a second one out."""
        if self.folder is None or not self.folder.is_dir():
            return False
        handle = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            return isinstance(error, BlockingIOError)
        finally:
            os.close(handle)
        return False


class Process(subprocess.Popen):
    """The process of a job, adding to the job's log; it leads a group, so that a signal reaches all it started."""

    def __init__(self, job: Job, threads: int):
        command = job.current.command
        settings = {"OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1"}
        make_folder(job.log.parent)
        with open(job.log, "a", encoding="utf-8") as log:
            begun = datetime.now(UTC).isoformat(timespec="seconds")
            print("\n" * (log.tell() > 0) + ATTEMPT + begun, shlex.join(command), file=log, flush=True)
            super().__init__(
                [sys.executable if word == "python" else word for word in command],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | settings,
                start_new_session=True,
                preexec_fn=partial(_tie, os.getpid()) if LIBC else None,
            )

    def stop(self, number: int) -> None:
        """Send a signal to the whole group, which may be gone already."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)


def _tie(parent: int) -> None:
    """In a new child: be asked to stop, at a checkpoint, when the parent is killed. Linux alone offers that."""
    # Until the child's own program begins, a handler of the parent's would take the signal and forget it.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os._exit(EXIT_INTERRUPTED)


class SlurmProcess:
    """A job on Slurm, seen as a process."""

    def __init__(self, submitted):
        self.submitted, self.cancelled = submitted, False

    def poll(self) -> int | None:
        """Exit code; 1 where Slurm ended it; None while it waits or runs."""
        if not self.submitted.done():
            return None
        return 1 if self.submitted.exception() else self.submitted.result()

    def wait(self, seconds: float) -> None:
        """Nothing: Slurm itself sees a cancelled job to its end."""

    def stop(self, number: int) -> None:
        """Cancel it, whatever the signal; a second time would cut its last checkpoint short."""
        if not self.cancelled:
            self.cancelled = True
            self.submitted.cancel(check=False)


class Submission:
    """A job as submitit sends it to a node; where Slurm takes the node away, submitit queues what `checkpoint` gives."""

    def __init__(self, job: Job, threads: int):
        self.job, self.threads, self.process = job, threads, None

    def __call__(self) -> int:
        """Exit code of the job's process."""
        self.process = Process(self.job, self.threads)
        # Slurm may send SIGTERM to this process alone, and kill both soon after.
        signal.signal(signal.SIGTERM, lambda number, frame: self.process.stop(number))
        # No wait: it would hold a lock that `checkpoint`, which interrupts this loop, needs.
        while (code := self.process.poll()) is None:
            time.sleep(0.1)
        if code in (EXIT_INTERRUPTED, -signal.SIGTERM):
            # Slurm asked it to stop: the order to queue it again, or the end of the node, comes next.
            time.sleep(GRACE_SECONDS)
        return code

    def checkpoint(self):
        """Stop the process; a training run goes on from its last checkpoint, another program begins anew."""
        from submitit.helpers import DelayedSubmission

        _stop([self.process] if self.process else [])
        return DelayedSubmission(Submission(self.job, self.threads))


def slurm(folder: Path, threads: int, settings: dict, cluster: str = "slurm") -> Callable[[Job], SlurmProcess]:
    """A function that starts a job on Slurm. folder: for submitit's files. settings: submitit's, as timeout_min."""
    try:
        import submitit

        executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
        executor.update_parameters(**{"cpus_per_task": threads} | settings)
    except ImportError:
        raise UserError("found no submitit, expected it for --slurm; mend with: pip install submitit") from None
    except (NameError, RuntimeError, AssertionError, TypeError, ValueError) as error:
        raise UserError(f"slurm: {' '.join(str(error).split())}") from None

    def start(job: Job) -> SlurmProcess:
        try:
            return SlurmProcess(executor.submit(Submission(job, threads)))
        except (RuntimeError, FileNotFoundError) as error:
            raise UserError(f"slurm: {' '.join(str(error).split())}") from None

    return start


def run(todo: list[Job], done: list[Job], start: Callable, workers: int, stop=False) -> dict[str, int | None]:
    """Exit code of every job by name; None for one left out because a job it waits for failed.

    start: job -> Process or SlurmProcess. workers: how many at once. stop: a StopSignal; it, like an interrupt, stops all
    that run. A run that another process writes to is waited for, and then resumed.
    """
    codes, waiting, running = dict.fromkeys((job.name for job in done), 0), list(todo), {}
    met: dict[str, float] = {}
    try:
        while waiting or running:
            for job in [job for job in waiting if codes.keys() >= set(job.after)]:
                if stop:
                    raise KeyboardInterrupt
                if any(codes[name] != 0 for name in job.after):
                    codes[job.name] = None
                    print(f"{job.name}: left out, it waits for one that failed", flush=True)
                elif len(running) >= workers:
                    continue
                elif not job.locked:
                    size = job.log.stat().st_size if job.log.exists() else 0
                    running[job] = start(job), time.monotonic(), size
                elif _is_awaited(job, met):
                    continue
                else:
                    codes[job.name] = EXIT_MISTAKE
                waiting.remove(job)
            time.sleep(0.05)
            if stop:
                raise KeyboardInterrupt
            for job, (process, began, size) in list(running.items()):
                if (code := process.poll()) is not None:
                    codes[job.name] = code
                    del running[job]
                    print(_line(job, code, time.monotonic() - began, size), flush=True)
    finally:
        _stop([process for process, *_ in running.values()])
    return {job.name: codes[job.name] for job in todo}


def _is_awaited(job: Job, met: dict[str, float]) -> bool:
    """Whether to wait longer for the process that writes to the job's run; met: since when, by name."""
    now = time.monotonic()
    if job.name not in met:
        print(f"{job.name}: waits, at most {WAIT_SECONDS} s, for the process that writes to {job.folder}", flush=True)
    if now - met.setdefault(job.name, now) < WAIT_SECONDS:
        return True
    print(
        f"{job.name}: not started, found another process still writing to {job.folder}; "
        "stop it, or wait for its end, then call this again",
        flush=True,
    )
    return False


def _line(job: Job, code: int, seconds: float, size: int) -> str:
    """How a job ended; size: bytes of its log before this attempt, whose last line is told."""
    if code == 0:
        return f"{job.name}: done in {seconds:.1f} s"
    said = job.log.read_bytes()[size:].decode(errors="replace") if job.log.exists() else ""
    # One that Slurm queued again has several beginnings.
    _, _, said = f"\n{said}".rpartition(f"\n{ATTEMPT}")[2].partition("\n")
    _, _, last = said.strip().rpartition("\n")
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
