"""Presets by what they can test."""

ALL = ("quick", "medium", "gpu", "paper")
SLOW = ("medium", "paper")
GPU = ("gpu", "paper")
