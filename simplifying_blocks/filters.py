"""Which texts are kept: no tables and data among the code, no content twice, no licence at a thousand heads."""

import hashlib
import re
import string
import zlib

import numpy as np

LEAST_CHARACTERS, MOST_CHARACTERS, LONGEST_LINE, MEAN_LINE, LEAST_ALPHANUMERIC = 200, 1_000_000, 1000, 100, 0.25
WINDOW_LINES, SAMPLED, REPEATED_SHARE = 10, 8, 0.5
PIECE_CHARACTERS = 20_000
_ALPHANUMERIC = (string.ascii_letters + string.digits).encode()
_FACTORS = np.array([pow(0x9E3779B97F4A7C15, 2 * k + 1, 1 << 64) for k in range(WINDOW_LINES)], np.uint64)


class Seen:
    """Contents met so far: whole ones, and a sample of their windows of ten lines."""

    def __init__(self):
        self.contents: set[bytes] = set()
        self.windows: set[int] = set()

    def repeats(self, text: str) -> str | None:
        """Why the text is nothing new; None if it is new, and from now on known."""
        lines = [line.rstrip().encode() for line in text.splitlines()]
        content = hashlib.sha256(b"\n".join(lines)).digest()
        if content in self.contents:
            return "same content"
        windows = line_windows(lines)
        if len(windows & self.windows) > REPEATED_SHARE * len(windows):
            return "half its lines known"
        self.contents.add(content)
        self.windows |= windows
        return None


def line_windows(lines: list[bytes]) -> set[int]:
    """Hashes of the windows of ten lines, one hash in eight: enough to tell copies, at an eighth of the memory."""
    if len(lines) < WINDOW_LINES:
        return set()
    hashes = np.fromiter(map(zlib.crc32, lines), np.uint64, len(lines))
    windows = np.lib.stride_tricks.sliding_window_view(hashes, WINDOW_LINES) @ _FACTORS
    return set(windows[(windows >> np.uint64(40)) % SAMPLED == 0].tolist())


def refused(text: str) -> str | None:
    """Why a Python file is left out: generated tables, data and the like; None if it is kept."""
    lines, raw = text.splitlines(), text.encode()
    if not LEAST_CHARACTERS <= len(text) <= MOST_CHARACTERS:
        return "short" if len(text) < LEAST_CHARACTERS else "long"
    if max(map(len, lines)) > LONGEST_LINE or len(text) > MEAN_LINE * len(lines):
        return "long lines"
    if len(raw) - len(raw.translate(None, _ALPHANUMERIC)) < LEAST_ALPHANUMERIC * len(raw):
        return "few letters"
    return None


def without_licence(text: str) -> str:
    """The text without a leading block of comments that is a licence: thousands of files begin with the same one."""
    head = re.match(r"(?:#[^\n]*(?:\n|$))*", text)[0]
    return text[len(head) :].lstrip("\n") if re.search("licen[cs]e|copyright", head, re.IGNORECASE) else text


def pieces(text: str) -> list[str]:
    """A long text cut after ends of lines, about PIECE_CHARACTERS each, so that parts of a single file can be held out."""
    parts, start = [], 0
    while start < len(text):
        end = text.find("\n", start + PIECE_CHARACTERS) + 1 or len(text)
        parts.append(text[start:end])
        start = end
    return parts
