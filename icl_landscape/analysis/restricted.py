"""LLC of parts of the network along training: only the weights of a group move, the others stay at w* (Wang et al., arXiv
2410.02984, applied to this paper's model)."""

import common.process  # noqa: F401

from dataclasses import dataclass, field
from typing import Annotated

from common import experiment, plotting
from common.config import UserError
from common.limits import Distinct, Name
from icl_landscape.analysis._curves import draw_curve, over_training
from icl_landscape.analysis._grid import Grid, first_seeds, over_settings
from icl_landscape.analysis._llc import findings, told, with_sampling
from icl_landscape.evaluate import Trained
from icl_landscape.sgmcmc.settings import selected

WITHOUT = "without "
"""Begins the name of a group that stays while all others move."""


@dataclass
class Settings(Grid):
    groups: Annotated[list[Name], Distinct(1)] = field(default_factory=lambda: ["all"])
    """Groups of weights that move: names such as all, embedding, positions, attention 0, or a pattern such as blocks.0.**;
    after "without", a group that stays. "every group" is all that have a name, "without every group" each of them left out."""


def groups_of(layers: int, layer_norm: bool) -> dict[str, list[str]]:
    """Name -> patterns, for a model of so many blocks."""
    named = {
        "embedding": ["token.*"],
        "positions": ["position.*"],
        "embeddings": ["token.*", "position.*"],
        "unembedding": ["unembedding.*"],
        "attention": ["blocks.*.attention.**"],
        "mlps": ["blocks.*.fc*.*"],
    }
    norms = {"unembedding norm": ["norm.*"], "norms": ["**norm*.*"]}
    for layer in range(layers):
        named[f"block {layer}"] = [f"blocks.{layer}.**"]
        named[f"attention {layer}"] = [f"blocks.{layer}.attention.**"]
        named[f"mlp {layer}"] = [f"blocks.{layer}.fc*.*"]
        norms[f"attention norm {layer}"] = [f"blocks.{layer}.norm1.*"]
        norms[f"mlp norm {layer}"] = [f"blocks.{layer}.norm2.*"]
    return named | norms if layer_norm else named


def spelled(asked: list[str], named: dict[str, list[str]]) -> list[str]:
    """The groups asked for, with "every group" spelled out, each once."""
    every = {"every group": ["all", *named], f"{WITHOUT}every group": [f"{WITHOUT}{name}" for name in named]}
    return list(dict.fromkeys(name for one in asked for name in every.get(one, [one])))


def patterns(group: str, named: dict[str, list[str]], names: list[str]) -> tuple[list[str], list[str]]:
    """What to include and what to exclude for a group; raises UserError where it is no group, or no weight of `names` moves."""
    own = group.removeprefix(WITHOUT)
    wanted = ["**"] if own == "all" else named.get(own, [own])
    include, exclude = (["**"], wanted) if group.startswith(WITHOUT) else (wanted, [])
    try:
        moving = selected(names, include, exclude)
    except ValueError:
        moving = []
    if not moving:
        raise UserError(
            f"found no weights in the group {group!r}, expected one of {', '.join(['all', *named])}, one of them after "
            f"{WITHOUT.strip()!r}, or a pattern of names such as {names[0]}; give other --groups"
        )
    return include, exclude


def analyse(trained: Trained, settings: Settings) -> dict:
    """Keys: seeds (those looked at); steps (T); groups -> name -> trained (names of the tensors that move), parameters (how
    many numbers they are), kinds (kind of finding -> how many), and per seed and checkpoint (S, T) what llc.py tells."""
    trained = first_seeds(trained, settings.seeds)
    steps, model = settings.steps(trained), trained.model(trained.seeds[0], trained.steps[0])
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    named = groups_of(model.config.layers, model.config.layer_norm)
    asked = {name: patterns(name, named, list(sizes)) for name in spelled(settings.groups, named)}
    cells = [with_sampling(settings, include=include, exclude=exclude) for include, exclude in asked.values()]
    groups = {}
    for name, parts in zip(asked, over_settings(trained, cells, steps), strict=True):
        moving = selected(list(sizes), *asked[name])
        rows = [told(parts[seed]) for seed in trained.seeds]
        found = [row["kind"] for seed in trained.seeds for row in findings(seed, steps, parts[seed])]
        groups[name] = {
            "trained": moving,
            "parameters": sum(sizes[tensor] for tensor in moving),
            "kinds": {kind: found.count(kind) for kind in dict.fromkeys(found)},
            **{key: [row[key] for row in rows] for key in rows[0]},
        }
    return {"seeds": trained.seeds, "steps": steps, "groups": groups}


def draw(result: dict):
    """LLC over training: of groups that move alone, and of what is left without a group."""
    alone = [name for name in result["groups"] if not name.startswith(WITHOUT)]
    left = [name for name in result["groups"] if name.startswith(WITHOUT)]
    panels = [names for names in (alone, left) if names]
    fig, axes = plotting.axes(len(panels), height=2.6, squeeze=False)
    for ax, names in zip(axes[0], panels, strict=True):
        for name, color in zip(names, plotting.ordered(len(names)), strict=True):
            curve = {"steps": result["steps"], "llc": result["groups"][name]["llc"]}
            draw_curve(ax, curve, "llc", f"{name} ({result['groups'][name]['parameters']:,})", color)
        over_training(ax, r"restricted $\hat\lambda$")
        ax.set_xlim(left=result["steps"][0])
        ax.legend(fontsize=5)
    return fig


def finding(result: dict) -> str:
    ends = {name: [seed[-1] for seed in group["llc"]] for name, group in result["groups"].items()}
    words = {n: "/".join("none" if v is None or v != v else f"{v:.3g}" for v in values) for n, values in ends.items()}
    told = [f"{n} {text} ({result['groups'][n]['parameters']:,} weights)" for n, text in words.items()]
    return f"LLC at step {result['steps'][-1]} of " + ", ".join(told)


if __name__ == "__main__":
    experiment.main(__name__)
