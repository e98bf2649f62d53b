"""What a long loop shows and hears: a bar or plain lines, and a wish to stop."""

import contextlib
import signal
import sys
import time

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 10.0


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
    """True once SIGINT or SIGTERM has come; a second one interrupts at once."""

    def __init__(self):
        self.received = False

    def __bool__(self) -> bool:
        return self.received

    def receive(self, number, frame) -> None:
        if self.received:
            raise KeyboardInterrupt
        self.received = True


@contextlib.contextmanager
def stop_signal():
    """`with stop_signal() as stop:` lets a loop end its step and save before it leaves (exit 130)."""
    stop = StopSignal()
    previous = {number: signal.signal(number, stop.receive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
