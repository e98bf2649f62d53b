"""Presets that can test a claim."""

ALL = ("quick", "gpu", "paper")
LONG = ("gpu", "paper")
