"""What a long loop shows and hears: a bar or plain lines, and a wish to stop."""

import contextlib
import signal
import sys
import time

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 10.0
_STOPS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")
STOP_SIGNALS = tuple(getattr(signal, name) for name in _STOPS if hasattr(signal, name))
"""What asks to stop, where the platform has it: a person, a supervisor, a closed terminal, a cluster before the time is up."""


class Progress:
    """A bar with the scalars, speed and time left on a terminal; a plain line now and then elsewhere.

    total: steps of the whole loop. initial: steps done before (a resumed run).
    """

    def __init__(self, total: int, unit: str = "step", initial: int = 0):
        self.total, self.unit, self.initial = total, unit, initial
        self.done = initial
        self.scalars = {}
        self.start = self.last_line = time.monotonic()
        self.told = None
        self.bar = tqdm(total=total, unit=unit, initial=initial, dynamic_ncols=True) if sys.stderr.isatty() else None

    def update(self, step: int, **scalars: float) -> None:
        """Show that `step` steps are done, with the latest scalars."""
        self.done, self.scalars = step, scalars or self.scalars
        if self.bar is not None:
            self.bar.set_postfix(self._shown(), refresh=False)
            self.bar.update(step - self.bar.n)
        elif time.monotonic() - self.last_line >= SECONDS_BETWEEN_LINES:
            self._line()

    def close(self) -> None:
        """End the bar, or tell the last step if no line has."""
        if self.bar is not None:
            self.bar.close()
        elif self.told != self.done:
            self._line()

    def _shown(self) -> dict[str, str]:
        return {name: f"{value:.4g}" for name, value in self.scalars.items()}

    def _line(self) -> None:
        self.last_line, self.told = time.monotonic(), self.done
        rate = (self.done - self.initial) / max(self.last_line - self.start, 1e-9)
        left = tqdm.format_interval((self.total - self.done) / rate) if rate else "?"
        scalars = "".join(f"  {name} {value}" for name, value in self._shown().items())
        print(f"{self.unit} {self.done}/{self.total}{scalars}  {rate:.1f} {self.unit}/s  {left} left", file=sys.stderr)


class StopSignal:
    """True once a signal has come that asks to stop; Ctrl-C after that interrupts at once."""

    def __init__(self):
        self.received = False

    def __bool__(self) -> bool:
        return self.received

    def receive(self, number, frame) -> None:
        # A cluster, a closed terminal and a dying parent ask more than once: only a person who asks again cannot wait.
        if self.received and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = True


@contextlib.contextmanager
def stop_signal():
    """`with stop_signal() as stop:` lets a loop end its step and save before it leaves (exit 130)."""
    stop = StopSignal()
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    # What is ignored stays so (nohup ignores SIGHUP); None is a handler that Python did not set and cannot bring back.
    previous = {number: handler for number, handler in before.items() if handler not in (signal.SIG_IGN, None)}
    for number in previous:
        signal.signal(number, stop.receive)
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
