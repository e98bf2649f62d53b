"""L_obs and L_mask of several changed models side by side; for ablation and hybrid."""

from common import plotting

PARTS = {"observed": "L_obs", "masked": "L_mask"}


def loss_points(ax, rows: dict[str, dict], variance: float) -> None:
    """Every seed a dot with its standard error over matrices, the mean over seeds a dash; log scale.

    rows: name -> losses as over_seeds gives them, with None for a seed that has no such row. The dashed line is Var.
    """
    for side, (part, label) in zip((-0.16, 0.16), PARTS.items(), strict=True):
        color = plotting.PALETTE[part]
        for place, row in enumerate(rows.values()):
            values, spreads = (row[f"loss_{part}{suffix}"]["values"] for suffix in ("", "_se"))
            seen = [pair for pair in zip(values, spreads, strict=True) if None not in pair]
            if not seen:
                continue
            values, spreads = zip(*seen, strict=True)
            mean = sum(values) / len(values)
            ax.hlines(mean, place + side - 0.15, place + side + 0.15, color=color, lw=2, label=label)
            ax.errorbar([place + side] * len(values), values, spreads, fmt=".", ms=3, color=color, lw=0.6, alpha=0.6)
            label = None
    ax.axhline(variance, color=plotting.GREY, ls="--", lw=0.8, label="Var (predicting 0)")
    ax.set_xticks(range(len(rows)), list(rows), rotation=90)
    ax.grid(False, axis="x")
    ax.set(yscale="log", ylabel="mean squared error", xlim=(-0.6, len(rows) - 0.4))
