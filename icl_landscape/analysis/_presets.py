"""Presets by what they can test."""

ALL = ("quick", "medium", "gpu", "paper")
LONG = ("medium", "gpu", "paper")
"""Those that go on to the stages LR3 and LR4."""
