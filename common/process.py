"""What a script's process needs before anything heavy is imported: every script imports this first.

Ctrl-C while modules load ends with 130 and no traceback (`common.config.main` and `stop_signal` take over later). A notebook's
MPLBACKEND, which its cells hand on to what they start, is forgotten: no window is wanted here, and a backend that this Python
lacks would end the import of matplotlib. Imported from anywhere but a script's top, this does nothing.
"""

import os
import signal
import sys
from pathlib import Path

EXIT_INTERRUPTED = 130


def _leave(number, frame) -> None:
    os._exit(EXIT_INTERRUPTED)


def _is_script() -> bool:
    """Whether a file of this repository was started, not a test runner or a notebook."""
    file = getattr(sys.modules["__main__"], "__file__", None)
    root = Path(__file__).parents[1]
    return file is not None and Path(file).resolve().parent.is_relative_to(root) and ".venv" not in Path(file).parts


if _is_script():
    os.environ.pop("MPLBACKEND", None)
    # One that is ignored, as in the background of a shell, stays ignored.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)
