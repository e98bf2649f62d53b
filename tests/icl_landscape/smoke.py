"""The smoke study of icl_landscape: settings of a few steps, the runs beside main, cheap settings of experiments."""

TINY = {
    "train.steps": 4, "train.batch": 4, "train.save_log": 2, "train.save_linear": 3, "train.log_log": 3, "train.log_linear": 2,
    "train.evaluation": 8, "seeds": [0], "train.warmup": 2,
}  # fmt: skip
SHORT = {"train.steps": 12, "train.save_log": 4, "train.save_linear": 3, "train.warmup": 4}
RUNS = {f"tasks{M}": SHORT | {"data.M": M} for M in (2, 4, 16)}
SMALL = {
    "points": 3, "sequences": 16, "scales": [5, 10], "sharpness": 8, "iterations": 3, "acceptance": 2, "reference": 256,
    "gammas": [500], "nbetas": [66.67], "stabilities": [0.4], "trace": 16, "cells": 3, "probes": 2, "top": 2, "resamples": 4,
    "grid": 40, "seeds": 0,
    "sampling.chains": 2, "sampling.draws": 6, "sampling.burn_in": 0, "sampling.batch": 8,
}  # fmt: skip
READS = {"stages": ("llc_paper", "llc_local", "behaviour")}
CHEAPEST = "embeddings"
