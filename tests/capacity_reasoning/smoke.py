"""The smoke study of capacity_reasoning: settings of a few steps, the runs beside main, cheap settings of experiments."""

TINY = {
    "train.steps": 4, "train.batch": 4, "train.save_log": 2, "train.save_linear": 3, "train.log_log": 3, "train.log_linear": 2,
    "train.evaluation": 8, "train.exposures": "null", "seeds": [0], "optim.warmup": 2, "data.N": 30,
}  # fmt: skip
TWO = {"mix.orders": [1, 2], "train.steps": 12, "train.save_linear": 3}
RUNS = {
    "onehop_d16_n40": {"data.N": 40, "train.steps": 12},
    "onehop_d32_n60": {"model.d": 32, "train.steps": 12},
    "onehop_d32_n80": {"model.d": 32, "data.N": 80, "train.steps": 12},
    "trap_r4_h0.1": TWO,
    "trap_r4_h1": TWO | {"mix.hop_ratio": 1.0},
    "trap_r12_h0.1": TWO | {"data.R": 12},
    "twohop_r4_d16": TWO,
    "twohop_r4_d32": TWO | {"model.d": 32},
    "latent": TWO,
    "cot": TWO | {"data.cot": True},
    "optim_schedulefree": TWO,
    "optim_adamw": TWO | {"optim.name": "adamw_cosine", "optim.beta1": 0.9},
}
SMALL = {"questions": 64}
