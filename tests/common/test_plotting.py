"""Figures: same bytes for the same data, small files, data beside them, colours that all readers can tell apart."""

import itertools
import json

import matplotlib
import matplotlib.pyplot
import numpy as np
import pytest
from PIL import Image

from common import plotting
from common.experiment import interval


def curves(points=400):
    rng = np.random.default_rng(0)
    return np.arange(points), rng.normal(size=(3, points)).cumsum(1)


def drawn():
    fig, (left, right) = plotting.axes(2)
    plotting.seed_lines(left, *curves(), label="masked", color=plotting.PALETTE["masked"])
    left.legend()
    plotting.heatmap(right, np.random.default_rng(1).random((49, 49)))
    return fig


def dotted():
    fig, ax = plotting.axes()
    plotting.seed_dots(
        ax, {"none": [0.1, 0.2, 0.15], "row heads": [0.5, None, np.inf], "lost": [None] * 3}, label="masked"
    )
    return fig, ax


def test_same_data_gives_the_same_bytes_at_any_time(tmp_path, monkeypatch):
    plotting.save(drawn(), tmp_path / "a", {"x": [1]})
    monkeypatch.setattr("time.time", lambda: 2_000_000_000.0)
    plotting.save(drawn(), tmp_path / "b", {"x": [1]})
    for kind in ("png", "pdf", "json"):
        assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()
    assert plotting._png(dotted()[0]) == plotting._png(dotted()[0])
    assert b"CreationDate" not in (tmp_path / "a.pdf").read_bytes()


def test_png_has_the_width_of_the_page_and_is_small(tmp_path):
    path = plotting.save(drawn(), tmp_path / "p=0.3", {})
    assert path == tmp_path / "p=0.3.png"
    assert path.stat().st_size < 150_000
    with Image.open(path) as image:
        assert image.width == round(plotting.FULL * plotting.DPI)


def test_palette_image_looks_like_the_full_one(tmp_path):
    fig = drawn()
    with Image.open(plotting.save(fig, tmp_path / "packed", {})) as image:
        packed = np.asarray(image.convert("RGB"), dtype=float)
    fig.savefig(tmp_path / "full.png", dpi=plotting.DPI)
    with Image.open(tmp_path / "full.png") as image:
        full = np.asarray(image.convert("RGB"), dtype=float)
    assert np.abs(packed - full).mean() < 1  # of 255 levels


def test_data_drawn_lies_beside_the_picture(tmp_path):
    steps, values = curves(5)
    values[0, 0] = np.nan
    plotting.save(drawn(), tmp_path / "loss", {"steps": steps, "curves": values})
    data = json.loads((tmp_path / "loss.json").read_text())
    assert data["steps"] == steps.tolist()
    assert data["curves"][0][0] is None and data["curves"][1] == values[1].tolist()


def test_every_seed_is_drawn_under_their_mean():
    fig, ax = plotting.axes()
    steps, values = curves()
    mean = plotting.seed_lines(ax, steps, values, label="masked", color="red")
    assert [line.get_label() for line in ax.lines if not line.get_label().startswith("_")] == ["masked"]
    assert np.array_equal([line.get_ydata() for line in ax.lines[:3]], values)
    assert np.allclose(mean.get_ydata(), values.mean(0))
    assert all(line.get_linewidth() < mean.get_linewidth() for line in ax.lines[:3])


def test_a_missing_value_of_one_seed_shows_as_a_gap_in_its_line_and_in_the_mean():
    fig, ax = plotting.axes()
    steps, values = curves()
    values[1, 7] = np.nan
    mean = plotting.seed_lines(ax, steps, values, label="", color="red")
    assert np.isnan(mean.get_ydata()).nonzero()[0].tolist() == [7]
    assert [len(line.get_xdata()) for line in ax.lines[:4]] == [400, 7, 392, 400]
    lost = plotting.seed_lines(ax, steps, [[np.inf] * 400, [None] * 400], label="", color="red")
    assert np.isnan(lost.get_ydata()).all()


def test_the_band_is_the_interval_over_seeds_and_does_not_widen_the_axes():
    fig, ax = plotting.axes()
    steps, values = curves(50)
    plotting.seed_lines(ax, steps, values, label="", color="red")
    edge = ax.collections[0].get_paths()[0].vertices
    for step in (0, 20, 49):
        mean, error = interval(values[:, step])
        drawn = edge[edge[:, 0] == step, 1]
        assert np.allclose([drawn.min(), drawn.max()], [mean - error, mean + error])
    margin = 0.05 * (values.max() - values.min())
    assert np.allclose(ax.get_ylim(), [values.min() - margin, values.max() + margin])


def test_labels_wait_for_the_legend_that_the_caller_asks_for():
    fig, ax = plotting.axes()
    for color in ("red", "blue"):
        plotting.seed_lines(ax, *curves(20), label=color, color=color)
        plotting.seed_dots(ax, {"a": [1, 2, 3]}, color, f"{color} dots")
    assert ax.get_legend() is None
    assert ax.get_legend_handles_labels()[1] == ["red", "red dots", "blue", "blue dots"]


def test_one_seed_has_no_band():
    fig, ax = plotting.axes()
    plotting.seed_lines(ax, [1, 2, 3], [[3.0, 2.0, 1.0]], label="", color="red")
    assert not ax.collections and not ax.get_xlabel() and not ax.get_legend()


def test_groups_show_every_seed_that_has_a_value_and_a_dash_at_their_mean():
    fig, ax = dotted()
    *dots, first, second = ax.collections
    assert [dot.get_offsets()[:, 1].tolist() for dot in dots if len(dot.get_offsets())] == [[0.1, 0.2, 0.15], [0.5]]
    assert [dash.get_segments()[0][0, 1] for dash in (first, second)] == pytest.approx([0.15, 0.5])
    assert [label.get_text() for label in ax.get_xticklabels()] == ["none", "row heads", "lost"]
    assert ax.get_legend_handles_labels()[1] == ["masked"]


def test_zero_is_white_in_every_heatmap():
    fig, (plain, signed) = plotting.axes(2)
    values = np.array([[0.0, 2.0], [-3.0, 1.0]])
    for image in (plotting.heatmap(plain, np.abs(values)), plotting.heatmap(signed, values, signed=True)):
        assert np.allclose(image.to_rgba(0.0)[:3], 1, atol=0.04)
        assert image.norm.vmax == 3
    assert plotting.heatmap(plain, np.zeros((2, 2))).norm.vmax == 1


def test_cells_are_centred_at_their_indices():
    fig, ax = plotting.axes()
    mesh = plotting.heatmap(ax, [[0.0, 2.0, 1.0], [1.0, np.nan, 1.0]])
    assert (*ax.get_xlim(), *ax.get_ylim()) == (-0.5, 2.5, 1.5, -0.5) and ax.get_aspect() == 1
    corners = (mesh.get_transform() - ax.transData).transform(mesh.get_coordinates().reshape(-1, 2))
    assert (corners.min(0).tolist(), corners.max(0).tolist()) == ([-0.5, -0.5], [2.5, 1.5])
    assert mesh.get_array()[0, 1] == 2 and mesh.get_array().mask[1, 1]


def test_no_figure_stays_open():
    before = matplotlib.pyplot.get_fignums()
    drawn()
    assert matplotlib.pyplot.get_fignums() == before


# Machado, Oliveira and Fernandes (2009), severity 1: linear RGB as people without one kind of cone see it.
VISION = {
    "all cones": np.eye(3),
    "no long": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "no middle": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "no short": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def lab(color, vision):
    """CIE L*a*b* (D65) of a colour as seen with `vision`."""
    rgb = np.array(matplotlib.colors.to_rgb(color))
    linear = np.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    seen = np.clip(np.asarray(VISION[vision]) @ linear, 0, 1)
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ seen
    f = np.cbrt(xyz / [0.9505, 1, 1.089])
    f = np.where(xyz / [0.9505, 1, 1.089] > 0.008856, f, 7.787 * xyz / [0.9505, 1, 1.089] + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("vision", VISION)
def test_colours_differ_for_every_kind_of_colour_vision(vision):
    seen = {color: lab(color, vision) for color in [*plotting.COLORS, plotting.GREY]}
    distances = {pair: np.linalg.norm(seen[pair[0]] - seen[pair[1]]) for pair in itertools.combinations(seen, 2)}
    # 2.3 is a just noticeable difference; lines need several of them.
    assert min(distances.values()) > 10, min(distances, key=distances.get)


def test_ordered_colours_rise_in_lightness():
    lightness = [lab(color, "all cones")[0] for color in plotting.ordered(6)]
    assert min(np.diff(lightness)) > 5


def test_each_seed_is_a_line_and_only_the_first_has_the_label():
    fig, ax = plotting.axes()
    plotting.each_seed(ax, [0, 1, 2], [[1, 2, 3], [3, 2, 1]], "loss", plotting.BLUE)
    assert [list(line.get_ydata()) for line in ax.lines] == [[1, 2, 3], [3, 2, 1]]
    assert ax.get_legend_handles_labels()[1] == ["loss"]
