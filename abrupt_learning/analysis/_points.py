"""L_mask and L_obs of several changed models side by side; for ablation and hybrid."""

from common import plotting


def loss_points(axs, rows: dict[str, dict], variance: float) -> None:
    """L_mask above (linear, with Var dashed) and L_obs below (log): a dot per seed, the mean over seeds a dash.

    axs: two axes that share x. rows: name -> losses as over_seeds gives them, None for a seed that has no such row.
    """
    for ax, part in zip(axs, ("masked", "observed"), strict=True):
        plotting.seed_dots(
            ax, {name: row[f"loss_{part}"]["values"] for name, row in rows.items()}, plotting.PALETTE[part]
        )
        ax.tick_params(axis="x", rotation=90)
    axs[0].axhline(variance, color=plotting.GREY, ls="--", lw=0.8)
    axs[0].tick_params(axis="x", labelbottom=False)
    axs[1].set_yscale("log")
