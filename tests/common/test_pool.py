"""The pool: how many run at once, what a signal or a kill leaves, runs that are locked, logs, Slurm by submitit's stand-in."""

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from common import pool, sweep
from common.config import UserError
from common.progress import STOP_SIGNALS
from tests.common.test_sweep import lay, one, starts, touch

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent was killed")


@pytest.fixture
def paper(tmp_path, monkeypatch):
    return lay(tmp_path, monkeypatch)


class Counted:
    """A process that ends at its third poll; counts how many live at once."""

    alive, most = 0, 0

    def __init__(self, job):
        self.polls = 0
        Counted.alive += 1
        Counted.most = max(Counted.most, Counted.alive)

    def poll(self):
        self.polls += 1
        Counted.alive -= self.polls == 3
        return 0 if self.polls == 3 else None


def test_pool_never_runs_more_than_its_workers():
    jobs = [pool.Job(str(number), (), Path("unused")) for number in range(7)]
    assert pool.run(jobs, [], Counted, workers=3) == dict.fromkeys("0123456", 0)
    assert (Counted.most, Counted.alive) == (3, 0)


def wait_until(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def started(*names):
    """Waits until the runs have begun; their processes."""
    files = [Path("runs/paper/width", name, "starts") for name in names]
    wait_until(lambda: all(file.exists() and file.read_text().endswith("\n") for file in files))
    return [int(file.read_text().split()[0]) for file in files]


def in_background(path, *flags, **settings):
    """The sweep as a process of its own."""
    command = [sys.executable, "-m", "common.sweep", str(path), *flags]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, **settings)


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_an_interrupt_leaves_no_child_behind(paper, number):
    swept = in_background(paper(method="grid", parameters={"sleep": {"values": [600, 601]}}))
    children = started("width_sleep=600", "width_sleep=601")
    swept.send_signal(number)
    assert swept.wait(120) == 130
    assert all(map(gone, children))


def test_an_interrupt_that_comes_twice_leaves_time_for_the_last_checkpoint(paper):
    swept = in_background(paper(**one(save=1)))
    started("main")
    for number in (signal.SIGHUP, signal.SIGHUP, signal.SIGTERM, signal.SIGUSR1):
        swept.send_signal(number)
        time.sleep(0.2)
    assert swept.wait(120) == 130
    assert Path("runs/paper/width/main/saved").exists()


def test_nohup_keeps_a_sweep_alive(paper):
    swept = in_background(paper(**one(sleep=1)), preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    started("main")
    swept.send_signal(signal.SIGHUP)
    assert swept.wait(120) == 0


@linux
def test_a_killed_sweep_takes_its_children_along_and_the_next_one_waits_and_resumes(paper, capsys):
    path = paper(method="list", runs=[{"name": "main", "save": 2}, {"name": "other"}])
    swept = in_background(path, "--workers=1")
    (child,) = started("main")
    swept.kill()
    swept.wait()
    # Stands for the lock that the real train.py keeps while it lives.
    with held("main", until=lambda: gone(child)):
        assert sweep.main([str(path)]) == 0
    assert Path("runs/paper/width/main/saved").exists()
    assert [line.split()[3] for line in starts("main")] == ["False", "True"]
    out = capsys.readouterr().out
    assert out.count("main: waits, at most 120 s") == 1 and "2 done and 0 failed" in out


@contextlib.contextmanager
def held(name, until=lambda: False):
    """A run's folder locked, as by a process that writes there, until a condition or the end."""
    folder, ended = Path("runs/paper/width", name), threading.Event()
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)

    def release():
        while not (until() or ended.wait(0.05)):
            pass
        os.close(handle)

    thread = threading.Thread(target=release)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def test_a_run_that_stays_locked_is_left_alone_and_the_rest_goes_on(paper, monkeypatch, capsys):
    monkeypatch.setattr(pool, "WAIT_SECONDS", 0.5)
    reader = {"name": "reader", "program": "paper/analysis/probe.py", "run": "runs/paper/width/main"}
    path = paper(method="list", runs=[{"name": "main"}, {"name": "other"}, reader])
    touch("runs/paper/width/logs/main.log")
    with held("main"):
        assert sweep.main([str(path)]) == 1
    out = capsys.readouterr().out
    assert "main: not started, found another process still writing to runs/paper/width/main" in out
    assert "other: done" in out and "reader: left out" in out
    assert not starts("main") and Path("runs/paper/width/logs/main.log").read_text() == ""


def test_a_run_that_began_after_the_plan_was_made_is_resumed(paper):
    (job,) = sweep.jobs(sweep.load(paper(**one())))
    Path("runs/paper/width/main").mkdir(parents=True)
    assert pool.run([job], [], lambda job: pool.Process(job, 1), workers=1) == {"main": 0}
    assert starts("main")[0].split()[3] == "True"


def test_a_log_keeps_every_attempt_and_the_reason_told_is_the_last_ones(paper, capsys):
    log = Path("runs/paper/width/logs/main.log")
    assert sweep.main([str(paper(**one(fail=1)))]) == 1
    first = log.read_text()
    assert capsys.readouterr().out.splitlines()[-2].endswith(f"see {log}: error: asked to fail")
    # A torn last line, and an attempt that ends without a word.
    log.write_text(first.rstrip("\n"))
    Path("paper/train.py").write_text("raise SystemExit(3)")
    assert sweep.main([str(paper(**one()))]) == 1
    assert capsys.readouterr().out.splitlines()[-2].endswith(f"see {log}: ")
    begun = [line for line in log.read_text().splitlines() if line.startswith(pool.ATTEMPT)]
    assert log.read_text().startswith(first) and len(begun) == 2 and begun[1].endswith("--name=main --resume=true")


class Refused:
    """A process that never began."""

    def __init__(self, job):
        pass

    def poll(self):
        return 1


def test_a_job_that_never_began_is_not_explained_by_an_earlier_attempt(tmp_path, capsys):
    log = tmp_path / "main.log"
    log.write_text(f"{pool.ATTEMPT}earlier\nerror: of then\n")
    assert pool.run([pool.Job("main", (), log)], [], Refused, workers=1) == {"main": 1}
    assert capsys.readouterr().out.endswith(f"see {log}: \n")


# submitit's local cluster stands for Slurm: same files, same pickled call, same signals.
def on_slurm(**settings):
    return pool.slurm(Path("runs/submitit"), threads=2, settings={"timeout_min": 2} | settings, cluster="local")


def test_slurm_runs_the_same_commands(paper):
    pytest.importorskip("submitit")
    jobs = sweep.jobs(sweep.load(paper(method="list", runs=[{"name": "good"}, {"name": "bad", "fail": True}])))
    assert pool.run(jobs, [], on_slurm(), workers=2) == {"good": 0, "bad": 1}
    assert starts("good")[0].split()[1] == "2"
    assert "asked to fail" in Path("runs/paper/width/logs/bad.log").read_text()


@pytest.mark.parametrize("flags", [{"save": 0.5}, {"sleep": 600}], ids=["saves", "just ends"])
@pytest.mark.parametrize("before", [None, signal.SIGTERM])
def test_a_job_that_slurm_preempts_saves_and_is_queued_again_to_resume(paper, before, flags):
    """Slurm's warning comes alone, or after a SIGTERM."""
    submitit = pytest.importorskip("submitit")
    (job,) = sweep.jobs(sweep.load(paper(**one(**flags))))
    process = on_slurm()(job)
    (child,) = started("main")
    node = int(starts("main")[0].split()[2])
    if before:
        os.kill(node, before)
        wait_until(lambda: gone(child))
    os.kill(node, submitit.JobEnvironment._usr_sig())
    wait_until(lambda: process.poll() is not None)
    assert process.poll() == 0 and gone(child)
    assert [line.split()[3] for line in starts("main")] == ["False", "True"]
    assert Path("runs/paper/width/main/saved").exists() == ("save" in flags)


@linux
def test_a_job_whose_node_dies_leaves_no_process_behind(paper):
    pytest.importorskip("submitit")
    (job,) = sweep.jobs(sweep.load(paper(**one(save=0.5))))
    on_slurm()(job)
    (child,) = started("main")
    os.kill(int(starts("main")[0].split()[2]), signal.SIGKILL)
    wait_until(lambda: gone(child))
    assert Path("runs/paper/width/main/saved").exists()


@pytest.mark.parametrize("settings", [{"colour": "blue"}, {"timeout_min": "soon"}, {"nodes": 3}, {3: 4}])
def test_slurm_settings_that_submitit_refuses_are_a_mistake(tmp_path, settings):
    pytest.importorskip("submitit")
    with pytest.raises(UserError, match="^slurm: "):
        pool.slurm(tmp_path, threads=1, settings=settings, cluster="local")


def test_a_job_that_slurm_refuses_is_a_mistake(paper, monkeypatch):
    """sbatch answers with an error, such as that of an unknown partition."""
    pytest.importorskip("submitit")
    touch("bin/srun", "bin/sbatch")
    Path("bin/sbatch").write_text("#!/bin/sh\necho invalid partition >&2\nexit 1\n")
    for name in ("srun", "sbatch"):
        Path("bin", name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{Path('bin').absolute()}:{os.environ['PATH']}")
    with pytest.raises(UserError, match="^slurm: .*invalid partition"):
        pool.slurm(Path("runs/submitit"), 1, {"slurm_partition": "gone"})(pool.Job("a", ("a",), Path("a.log")))
