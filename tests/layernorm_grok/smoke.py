"""The smoke study of layernorm_grok: settings of a few steps, the runs beside main, cheap settings of experiments."""

TINY = {"data.P": 11, "model.d": 16, "train.steps": 4, "train.evaluate_every": 2, "train.save_every": 2, "seeds": [0]}
SHORT = {"train.steps": 12, "train.evaluate_every": 4, "train.save_every": 3}
FOUR = SHORT | {"grid.placement": ["off", "attn-pre", "pre", "mlp-pre"]}
OFF = SHORT | {"grid.placement": ["off"]}
ALPHAS = OFF | {"grid.alpha": [0.5, 1.0]}
RUNS = {
    "wd_sweep": OFF | {"grid.weight_decay": [0.5, 1.0]},
    "lr_sweep": OFF | {"grid.lr": [2e-3, 4e-3]},
    "readout_fixed_lr": ALPHAS,
    "readout_scaled_lr": ALPHAS | {"grid.lr_rule": ["inv_alpha2"]},
    "readout_factorial": ALPHAS | {"grid.lr_rule": ["fixed", "inv_alpha2"]},
    "er_loss": OFF | {"grid.er_strength": [0.0, 0.1], "train.er_start": 2},
    "init_scale": OFF | {"grid.init_scale": [0.5, 2.0]},
    "rmsnorm": FOUR | {"model.norm": "rms"},
    "depth3": FOUR | {"model.layers": 3, "data.P": 11},
    "lazy_sgd": ALPHAS | {"train.optimizer": "sgd", "train.loss": "mse", "train.subtract_init": True},
    "lazy_adamw": ALPHAS | {"train.subtract_init": True},
    "post": SHORT | {"grid.placement": ["post"]},
}
RUNS |= {
    f"readout_{rule}_lr_{kind}": RUNS[f"readout_{rule}_lr"]
    for rule in ("fixed", "scaled")
    for kind in ("eps0", "subtract")
}
SMALL = {"points": 3, "pairs": 20, "iterations": 6, "steps": 3, "runs": ["post"]}
CHEAPEST = "ln_position"
