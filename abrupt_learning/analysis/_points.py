"""L_mask and L_obs of several changed models side by side; for ablation and hybrid."""

from common import plotting


def loss_points(axs, rows: dict[str, dict], variance: float) -> None:
    """L_mask above (linear, with Var dashed) and L_obs below (log): a dot per seed, the mean over seeds a dash.

    axs: two axes that share x. rows: name -> losses as over_seeds gives them, None for a seed that has no such row. Bars on
    the dots are standard errors over matrices.
    """
    for ax, part in zip(axs, ("masked", "observed"), strict=True):
        color = plotting.PALETTE[part]
        for place, row in enumerate(rows.values()):
            pairs = zip(row[f"loss_{part}"]["values"], row[f"loss_{part}_se"]["values"], strict=True)
            seeds = [pair for pair in pairs if None not in pair]
            for value, spread in seeds:
                ax.errorbar(place, value, spread, fmt=".", ms=3, color=plotting.INK, lw=0.6)
            if seeds:
                mean = sum(value for value, _ in seeds) / len(seeds)
                ax.hlines(mean, place - 0.35, place + 0.35, color=color, lw=2)
        ax.grid(False, axis="x")
        ax.set_xticks(range(len(rows)), list(rows), rotation=90)
    axs[0].axhline(variance, color=plotting.GREY, ls="--", lw=0.8)
    axs[0].tick_params(axis="x", labelbottom=False)
    axs[1].set_yscale("log")
