"""The smoke study of abrupt_learning: settings of a few steps, the runs beside main, cheap settings of experiments."""

TINY = {"train.steps": 4, "train.batch_size": 4, "train.save_every": 2, "train.log_every": 2, "train.warmup": 0, "seeds": [0],
        "model.hidden_size": 16, "model.n_layer": 2, "model.n_head": 2, "train.evaluate_batch": 4}  # fmt: skip
SHORT = {"train.steps": 10, "train.save_every": 5}
PARTS = {"train.components": ["token", "position", "attention", "mlp"]}
RUNS = {
    "gpt": SHORT | {"model.kind": "gpt", "train.evaluate_every": 5},
    "control": SHORT | {"data.low": 0.0},
    "mixture": SHORT | {"data.sizes": [[3, 3], [4, 4]], "train.evaluate_every": 5},
    "components": SHORT | PARTS | {"train.start_from": "{study}/main"},
}
SMALL = {"runs": ["main", "control"], "matrices": 64}
CHEAPEST = "loss"
