"""The smoke study of simplifying_blocks: settings of a few steps, the runs beside main, cheap settings of experiments."""

TINY = {
    "data.source": "local", "data.megabytes": 0.5, "data.valid_megabytes": 0.05, "data.vocabulary": 512,
    "model.layers": 2, "model.d": 16, "model.heads": 2,
    "train.steps": 4, "train.batch": 4, "train.context": 16, "train.log_every": 2, "train.evaluate_every": 2,
    "train.evaluate_windows": 4, "train.final_windows": 4, "train.probe_every": 2, "train.probe_windows": 2,
    "train.save_every": 2, "seeds": [0],
}  # fmt: skip
SHORT = {
    "train.steps": 12,
    "train.log_every": 4,
    "train.evaluate_every": 4,
    "train.probe_every": 4,
    "train.save_every": 6,
}
RATIOS = {"model.block": "skipless"}
RUNS = {
    "sas": SHORT | {"model.block": "sas"},
    "sas_p": SHORT | {"model.block": "sas_p"},
    "long_preln": SHORT | {"train.steps": 12},
    "mlm_preln": SHORT | {"model.objective": "mlm"},
    "shallow_preln": SHORT | {"model.mlp_ratio": 2},
    "skipless": SHORT | RATIOS,
    "skipless_p": SHORT | RATIOS | {"model.parallel": True, "model.alpha_FF": "off"},
    "skipless_orthogonal": SHORT | RATIOS | {"model.init_V": "orthogonal", "model.init_P": "orthogonal"},
    "preln_skip": SHORT | {f"model.{key}": 1.0 if key[0] == "a" else 0.2 for key in ("alpha_V", "alpha_P", "beta_V", "beta_P")}
    | {"model.init_V": "identity", "model.init_P": "identity", "model.trainable": ["alpha_V", "beta_V", "alpha_P", "beta_P"]},
}  # fmt: skip
SMALL = {"rounds": 2, "repeats": 1, "depths": [2, 3], "runs": ["sas", "skipless"], "blocks": ["sas", "sas_p"]}
CHEAPEST = "blocks"
