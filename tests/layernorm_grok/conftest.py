"""A finished smoke study for every test that reads one."""

from pathlib import Path

import pytest

from common import config
from layernorm_grok.train import Config, main
from tests.papers import flags

SMOKE = Path(__file__).parents[2] / "layernorm_grok/configs/smoke.yaml"

TINY = {"train.steps": 12, "train.evaluate_every": 4, "train.save_every": 3}
ALPHAS = {"grid.placement": ["off"], "grid.alpha": [0.5, 1.0]}
RUNS = {
    "wd_sweep": {"grid.placement": ["off"], "grid.weight_decay": [0.5, 1.0]},
    "lr_sweep": {"grid.placement": ["off"], "grid.lr": [2e-3, 4e-3]},
    "readout_fixed_lr": ALPHAS,
    "readout_scaled_lr": ALPHAS | {"grid.lr_rule": ["inv_alpha2"]},
    "er_loss": {"grid.placement": ["off"], "grid.er_strength": [0.0, 0.1], "train.er_start": 2},
    "init_scale": {"grid.placement": ["off"], "grid.init_scale": [0.5, 2.0]},
    "rmsnorm": {"grid.placement": ["off", "attn-pre", "pre", "mlp-pre"], "model.norm": "rms"},
    "depth3": {"grid.placement": ["off", "attn-pre", "pre", "mlp-pre"], "model.layers": 3, "data.P": 11},
    "lazy_sgd": ALPHAS | {"train.optimizer": "sgd", "train.loss": "mse", "train.subtract_init": True},
    "lazy_adamw": ALPHAS | {"train.subtract_init": True},
    "post": {"grid.placement": ["post"]},
}
"""Runs beside main that analyses read, and how they differ from it."""


@pytest.fixture(scope="session")
def smoke_run(tmp_path_factory) -> Path:
    """Folder of the smoke run: seven placements, three seeds, no grokking. Tests may add results to it."""
    root = tmp_path_factory.mktemp("runs")
    settings = config.parse(Config, [f"--config={SMOKE}", f"--root={root}", "--device=cpu", "--threads=1"])
    main(settings)
    return settings.folder


@pytest.fixture(scope="session")
def smoke_study(smoke_run) -> Path:
    """The smoke run with the other runs that analyses read beside it."""
    for name, changes in RUNS.items():
        values = {"root": str(smoke_run.parents[2]), "device": "cpu", "name": name} | TINY | changes
        main(config.parse(Config, [f"--config={SMOKE}", *flags(values)]))
    return smoke_run.parent
