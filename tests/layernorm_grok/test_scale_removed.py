"""Scale-removed loss: where a probe must change nothing, and where it equals another model's plain loss."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F

from layernorm_grok.data import Data
from layernorm_grok.estimators.scale_removed import MODES, mean_norm, norm_variation, scale_removed
from layernorm_grok.estimators.trace import trace
from layernorm_grok.losses import cross_entropy
from layernorm_grok.model import Transformer
from layernorm_grok.placement import Placement
from tests.layernorm_grok.models import random_model

ALL = torch.arange(25)
TARGETS = Data(P=5).targets()


def plain(model: Transformer, alpha: float = 1.0) -> float:
    with torch.no_grad():
        return cross_entropy(alpha * model(ALL).logits, TARGETS).mean().item()


def probed(model: Transformer, mode: str, alpha: float = 1.0) -> float:
    return scale_removed(model, ALL, TARGETS, alpha, mode)["loss"]


def with_placement(model: Transformer, placement: str) -> Transformer:
    other = Transformer(model.c, model.P, Placement.parse(placement), torch.Generator()).double()
    other.load_state_dict({n: p for n, p in model.state_dict().items() if n in dict(other.named_parameters())})
    return other


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("norm", ["layer", "rms"])
@pytest.mark.parametrize("placement", ["mlp-pre", "pre", "pre-v", "pre-qk", "mlp-inpnorm"])
def test_unit_is_the_plain_loss_where_the_mlp_input_is_normed_already(placement, norm, layers):
    model = random_model(placement, norm=norm, layers=layers)
    assert probed(model, "unit", 1.5) == pytest.approx(plain(model, 1.5), rel=1e-11)


@pytest.mark.parametrize("placement", ["off", "attn-pre", "attn-pre-v", "attn-pre-qk", "post"])
def test_unit_is_another_loss_elsewhere(placement):
    model = random_model(placement)
    assert abs(probed(model, "unit") - plain(model)) > 1e-3


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("placement", ["off", "attn-pre-v", "pre", "peri"])
def test_code_is_the_same_parameters_without_norms_and_with_unit_input(placement, layers):
    for end in ("", "+final", "+final-center"):
        model = random_model(placement + end, layers=layers)
        assert probed(model, "code") == pytest.approx(plain(with_placement(model, "mlp-inpnorm" + end)), rel=1e-11)


def test_code_and_unit_part_where_attention_has_a_norm():
    plain_attention, normed = random_model("off"), random_model("attn-pre")
    assert probed(plain_attention, "code") == pytest.approx(probed(plain_attention, "unit"), rel=1e-12)
    assert abs(probed(normed, "code") - probed(normed, "unit")) > 1e-3


@pytest.mark.parametrize("layers", [1, 3])
def test_mean_norm_changes_nothing_where_all_norms_are_equal(layers):
    """Post norm with gain 1 and bias 0 leaves every y with norm sqrt(d)."""
    model = random_model("post", layers=layers)
    for block in model.layers:
        torch.nn.init.ones_(block.ln1.weight)
        torch.nn.init.zeros_(block.ln1.bias)
    variation = norm_variation(model, ALL)
    assert variation["mean"] == pytest.approx([8**0.5] * layers)
    assert variation["variation"] == pytest.approx([0] * layers, abs=1e-12)
    assert probed(model, "mean_norm") == pytest.approx(plain(model), rel=1e-11)
    assert abs(probed(model, "unit") - plain(model)) > 1e-3


def test_mean_norm_keeps_directions_and_the_mean_and_takes_away_the_variation():
    y = torch.randn(40, 3, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    after = mean_norm(y)
    torch.testing.assert_close(F.cosine_similarity(after, y, dim=-1), torch.ones(40, 3, dtype=torch.float64))
    torch.testing.assert_close(after.norm(dim=-1), y.norm(dim=-1).mean().expand(40, 3))


def literal_mean_norm(model: Transformer) -> float:
    """Two layers by hand: the first over three positions, the second over the last query."""
    model, seen = copy.deepcopy(model), []

    def replace(y):
        norm = (y * y).sum(-1).sqrt()
        seen.append(norm)
        return y / norm[..., None] * (norm.sum() / norm.numel())

    logits = trace(model, ALL, pruned=True, mlp_input=replace).logits
    assert [tuple(norm.shape) for norm in seen] == [(25, 3), (25, 1)]
    return -torch.log_softmax(logits, -1)[ALL, TARGETS].mean().item()


def test_mean_norm_at_depth_is_taken_over_the_positions_that_are_computed():
    model = random_model("off", layers=2)
    assert probed(model, "mean_norm") == pytest.approx(literal_mean_norm(model), rel=1e-11)
    assert abs(probed(model, "mean_norm") - plain(model)) > 1e-3


def test_norm_variation_is_the_literal_one():
    model = random_model("off", layers=2)
    found, layers = norm_variation(model, ALL), trace(model, ALL).layers
    for number, y in enumerate((layers[0].y, layers[1].y[:, -1:])):
        norms = y.norm(dim=-1).flatten()
        assert found["mean"][number] == pytest.approx(norms.mean().item())
        assert found["variation"][number] == pytest.approx((norms.var(correction=0).sqrt() / norms.mean()).item())


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_reports_the_scaled_loss_and_leaves_the_model_alone(mode):
    model = random_model("attn-pre+final")
    before, placement, alpha = model(ALL).logits, model.placement, 2.5
    found = scale_removed(model, ALL, TARGETS, alpha, mode)
    assert torch.equal(model(ALL).logits, before)
    assert model.placement == placement
    assert found["loss"] != pytest.approx(probed(model, mode, 1.0), rel=1e-3)
    assert found["minus_log_loss"] == pytest.approx(-math.log(found["loss"]))
    assert found["accuracy"] == scale_removed(model, ALL, TARGETS, 1.0, mode)["accuracy"]


def test_accuracy_is_that_of_the_probed_logits():
    model = random_model("off", seed=2)  # one whose largest logit is not the same class throughout
    own = trace(model, ALL, mlp_input=lambda y: y / y.norm(dim=-1, keepdim=True)).logits
    targets = torch.where(ALL < 10, own.argmax(-1), own.argmin(-1))
    assert scale_removed(model, ALL, targets, 2.0, "unit")["accuracy"] == pytest.approx(0.4)
    assert scale_removed(model, ALL, targets, 2.0, "mean_norm")["accuracy"] != pytest.approx(0.4)


def test_a_subtracted_start_is_part_of_the_objective():
    model = random_model("mlp-pre")
    start = random_model("mlp-pre", seed=1)(ALL).logits.detach()
    expected = cross_entropy(1.5 * (model(ALL).logits - start), TARGETS).mean().item()
    assert scale_removed(model, ALL, TARGETS, 1.5, "unit", start)["loss"] == pytest.approx(expected, rel=1e-11)


def test_a_tiny_loss_is_not_rounded_to_zero_in_float32():
    model = random_model("mlp-pre").float()
    targets = model(ALL).logits.argmax(-1)
    found = scale_removed(model, ALL, targets, 1e3, "unit")
    assert found["accuracy"] == 1
    assert found["loss"] == pytest.approx(scale_removed(model.double(), ALL, targets, 1e3, "unit")["loss"], rel=0.05)


def test_an_unknown_mode_is_told_with_those_there_are():
    with pytest.raises(ValueError, match="found mode 'norm', expected one of code, unit, mean_norm"):
        scale_removed(random_model(), ALL, TARGETS, 1.0, "norm")
