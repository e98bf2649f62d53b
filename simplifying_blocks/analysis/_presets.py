"""Presets by what they can test."""

ALL = ("quick", "medium", "gpu", "paper")
LARGE = ("medium", "gpu", "paper")
GPU = ("gpu", "paper")
