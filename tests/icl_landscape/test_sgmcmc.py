"""Samplers and estimators against closed forms, quadrature, literal versions and devinterp; what the health report says."""

import copy
import math

import pytest
import torch
from torch import nn

from common.replicas import Replicas, linear
from icl_landscape.sgmcmc.chains import Chains, Trace, by_autograd, by_replicas, rows
from icl_landscape.sgmcmc.estimators import (
    local_learning_coefficient,
    loss_covariance,
    reference_loss,
    singular_fluctuation,
    standard_error,
    wbic,
)
from icl_landscape.sgmcmc.health import examine
from icl_landscape.sgmcmc.samplers import METHODS, acceptance
from icl_landscape.sgmcmc.settings import Minibatches, Sampling, mask, selected

CURVATURE = torch.tensor([4.0, 2.0, 1.0, 0.5, 0.25, 0.0, 3.0, 1.5], dtype=torch.float64)
NOTHING = torch.zeros(1)
# Independent copies of a small problem in one chain: their coefficients add up, and noise costs less than of many chains.
COPIES = 16


def bowl(params, batch):
    """1 + sum of h w^2 / 2, in as many copies as there are: (C,)."""
    return 1 + (CURVATURE.to(params) * params.unflatten(1, (-1, len(CURVATURE))).square()).sum((1, 2)) / 2


def chains_of(function, settings, checkpoints=None, draw=lambda: None, **more):
    """Chains on a loss, from the origin unless other checkpoints (M, P) are given."""
    start = torch.zeros(1, COPIES * len(CURVATURE), dtype=torch.float64) if checkpoints is None else checkpoints
    return Chains(rows(start, settings.chains), by_autograd(function), draw, settings, **more)


def quadratic_llc(nbeta, gamma, epsilon):
    """nbeta E[loss - loss*] of discretised SGLD at rest on the bowl, weights of variance 1 / (a (1 - epsilon a / 4))."""
    a = nbeta * CURVATURE + gamma
    return COPIES * float((nbeta * CURVATURE / (2 * a * (1 - epsilon * a / 4))).sum())


# Oracles of the samplers


def test_sgld_on_a_quadratic_has_the_discretised_chain_s_distribution():
    nbeta, gamma, epsilons = 10.0, 3.0, (0.005, 0.02, 0.05)
    settings = Sampling(nbeta=nbeta, gamma=gamma, chains=6, burn_in=500, draws=1500, shared=False)
    epsilon = torch.tensor(epsilons).repeat_interleave(6)
    start = torch.zeros(3, COPIES * len(CURVATURE), dtype=torch.float64)
    trace = chains_of(bowl, settings, start, rates={"epsilon": epsilon}).run()
    found = local_learning_coefficient(trace, nbeta, torch.ones(3))
    for m, step in enumerate(epsilons):
        exact = quadratic_llc(nbeta, gamma, step)
        assert abs(found.mean[m] - exact) < 4 * found.error[m] and found.error[m] < 0.02 * exact
    # The continuous limit is another number, and is told apart.
    assert found.mean[2] - quadratic_llc(nbeta, gamma, 0.0) > 10 * found.error[2]


@pytest.mark.parametrize(("method", "epsilon"), [("rmsprop_sgld", 5e-4), ("sgnht", 1e-3)])
def test_other_samplers_have_the_same_stationary_loss(method, epsilon):
    settings = Sampling(
        method=method, epsilon=epsilon, nbeta=10, gamma=3, chains=6, burn_in=1000, draws=1500, decay=0.9999
    )
    found = local_learning_coefficient(chains_of(bowl, settings).run(), 10, torch.ones(1))
    assert found.mean[0] / quadratic_llc(10, 3, 0.0) == pytest.approx(1, abs=0.05)


def test_prior_and_localisation_are_one_gaussian():
    settings = Sampling(epsilon=1e-2, nbeta=1e-6, gamma=2, prior=6, chains=4, burn_in=300, draws=1)
    start = torch.ones(1, 8 * 64, dtype=torch.float64)
    chains = chains_of(bowl, settings, start, prior_centre=-torch.ones(8 * 64))
    chains.run()
    flat = chains.sampler.flat
    assert flat.mean().item() == pytest.approx((2 * 1 - 6 * 1) / 8, abs=0.03)
    assert flat.var().item() == pytest.approx(1 / 8 / (1 - 0.01 * 8 / 4), rel=0.1)


def crossing(a, b):
    """Excess loss of the predictor x w1^a w2^b of noise, E x^2 = 1 (Lau et al., section 4)."""
    return lambda params, batch: (params[:, ::2].pow(2 * a) * params[:, 1::2].pow(2 * b)).sum(1)


def crossing_by_quadrature(a, b, nbeta, gamma):
    """nbeta E[loss] under exp(-nbeta loss - gamma |w|^2 / 2)."""
    w = torch.linspace(-6, 6, 2401, dtype=torch.float64) / math.sqrt(gamma)
    loss = w[:, None].pow(2 * a) * w.pow(2 * b)
    weight = (-nbeta * loss - gamma / 2 * (w[:, None].square() + w.square())).exp()
    return float(nbeta * (weight * loss).sum() / weight.sum())


@pytest.mark.parametrize(
    ("a", "b", "nbeta"),
    [(1, 2, 1e5), *(pytest.param(*x, marks=pytest.mark.slow) for x in [(0, 1, 1e2), (0, 3, 1e4), (1, 3, 1e6)])],
)
def test_normal_crossings(a, b, nbeta):
    settings = Sampling(epsilon=2e-4, nbeta=nbeta, gamma=10.0, chains=4, burn_in=1500, draws=2500)
    chains = chains_of(crossing(a, b), settings, torch.zeros(1, 2 * 128, dtype=torch.float64))
    found = local_learning_coefficient(chains.run(), nbeta, torch.zeros(1)).mean.item() / 128
    # Steps this long add some percent where the crossing's arms are steep.
    assert found == pytest.approx(crossing_by_quadrature(a, b, nbeta, 10.0), rel=0.1)
    assert found == pytest.approx(1 / (2 * max(a, b)), rel=0.3)


def reduced_rank_llc(inputs, outputs, hidden, rank):
    """Aoyagi & Watanabe (2005), for H hidden units where the truth has `rank`."""
    m, n, h, r = inputs, outputs, hidden, rank
    if m + h < n + r:
        return (h * m - h * r + n * r) / 2
    if n + h < m + r:
        return (h * n - h * r + m * r) / 2
    if m + n < h + r:
        return m * n / 2
    odd = (m + n + h + r) % 2
    return (-((h + r) ** 2) - m**2 - n**2 + 2 * (h + r) * m + 2 * (h + r) * n + 2 * m * n + odd) / 8


@pytest.mark.parametrize(
    ("inputs", "outputs", "hidden", "rank"),
    [(3, 3, 2, 1), *(pytest.param(*x, marks=pytest.mark.slow) for x in [(2, 5, 2, 1), (4, 3, 3, 0)])],
)
def test_reduced_rank_regression(inputs, outputs, hidden, rank):
    first, second = torch.zeros(hidden, inputs), torch.zeros(outputs, hidden)
    first[:rank, :rank], second[:rank, :rank] = torch.eye(rank), torch.eye(rank)
    start = torch.cat([first.flatten(), second.flatten()]).repeat(1, COPIES)

    def loss(params, batch):
        A, B = params.unflatten(1, (COPIES, -1)).split([first.numel(), second.numel()], 2)
        product = B.unflatten(2, second.shape) @ A.unflatten(2, first.shape)
        return (product - second @ first).square().sum((1, 2, 3))

    nbeta = 1000.0
    settings = Sampling(epsilon=5e-5, nbeta=nbeta, gamma=5.0, chains=4, burn_in=2500, draws=1500)
    found = (
        local_learning_coefficient(chains_of(loss, settings, start).run(), nbeta, torch.zeros(1)).mean.item() / COPIES
    )
    exact = reduced_rank_llc(inputs, outputs, hidden, rank)
    assert found == pytest.approx(exact, rel=0.2)
    # Half the number of weights, what a regular model would have, is far off.
    assert found < 0.75 * start.shape[1] / COPIES / 2


def test_constant_loss_is_exactly_zero():
    def constant(params, batch):
        return params[:, :1] * 0 + torch.tensor([0.1, 0.7])

    settings = Sampling(chains=3, draws=7, reference="paired")
    trace = chains_of(constant, settings, torch.ones(2, 5), parts=2, loss=constant).run()
    fixed, error = reference_loss(lambda batch: constant(torch.ones(2, 5), batch), range(13))
    for reference in (None, fixed):
        found = local_learning_coefficient(trace, 66.67, reference)
        assert not any(
            x.any() for x in (found.mean, found.error, found.chains, found.tokens, found.tokens_error, error)
        )


# Batching


class Net(nn.Module):
    """y = c . tanh(W x), in stacks too."""

    def __init__(self, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.hidden, self.output = nn.Linear(3, 6), nn.Linear(6, 1)

    def forward(self, x):
        return linear(linear(x, self.hidden.weight, self.hidden.bias).tanh(), self.output.weight, self.output.bias)


NETS = [Net(seed) for seed in range(3)]
SHAPES = {name: p.shape for name, p in NETS[0].named_parameters()}
X = torch.randn(200, 3, generator=torch.Generator().manual_seed(5))
DATA = (X, X.sin().sum(1, keepdim=True))


def measure(model, x, y):
    error = (model(x) - y).square().mean((-1, -2))
    return error, error


def net_chains(checkpoints, settings, batched=True, **more):
    """Chains on the nets numbered `checkpoints`."""
    nets = [copy.deepcopy(NETS[m]) for m in checkpoints for _ in range(settings.chains)]
    replicas = Replicas(nets, batched=batched)
    return Chains(
        replicas.flat, by_replicas(replicas, measure), Minibatches(DATA, settings, len(checkpoints)), settings, **more
    )


METHOD = pytest.mark.parametrize("method", METHODS)
SMALL = {"epsilon": 1e-4, "nbeta": 50.0, "gamma": 20.0, "draws": 30, "burn_in": 5, "every": 2, "batch": 32}


@METHOD
@pytest.mark.parametrize("batched", [True, False])
def test_batched_run_equals_single_chains(method, batched):
    settings = Sampling(method=method, chains=4, **SMALL)
    together = net_chains([0, 1, 2], settings, batched)
    trace = together.run()
    for m, chain in [(0, 0), (1, 3), (2, 1)]:
        alone = net_chains([m], Sampling(method=method, chains=1, first=chain, **SMALL))
        single, row = alone.run(), 4 * m + chain
        torch.testing.assert_close(trace.losses[:, row], single.losses[:, 0], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(trace.distance[:, row], single.distance[:, 0], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(together.sampler.flat[row], alone.sampler.flat[0], atol=1e-5, rtol=1e-5)
    assert trace.losses[:, 0].sub(trace.losses[:, 1]).abs().max() > 1e-3


@METHOD
def test_same_seed_same_bits(method):
    one, two, other = (net_chains([0, 1], Sampling(method=method, chains=2, seed=s, **SMALL)) for s in (3, 3, 4))
    traces = [chains.run() for chains in (one, two, other)]
    assert torch.equal(traces[0].losses, traces[1].losses) and torch.equal(one.sampler.flat, two.sampler.flat)
    assert not torch.equal(traces[0].losses, traces[2].losses)


def test_streams_are_shared_by_checkpoints_or_not():
    for shared in (True, False):
        settings = Sampling(chains=2, shared=shared, **SMALL)
        trace = net_chains([1, 1], settings).run()
        assert torch.equal(trace.losses[:, :2], trace.losses[:, 2:]) == shared


def test_first_draw_is_at_the_checkpoint():
    settings = Sampling(chains=2, **SMALL | {"burn_in": 0, "batch": 0})
    trace = net_chains([0], settings).run()
    assert not trace.distance[0].any() and trace.distance[1:].all()
    assert trace.losses[0, 0, 0].item() == pytest.approx(measure(NETS[0], *DATA)[0].item(), rel=1e-5)


# Masks and boxes


@METHOD
def test_masked_weights_stay_bitwise(method):
    settings = Sampling(method=method, chains=2, prior=3.0, include=["hidden.*"], exclude=["**.bias"], **SMALL)
    moves = mask(SHAPES, settings)
    chains = net_chains([0, 1], settings, mask=moves)
    start = chains.sampler.centre.clone()
    trace = chains.run()
    changed = chains.sampler.flat != start
    assert changed[:, moves].all() and not changed[:, ~moves].any() and moves.sum() == 18
    torch.testing.assert_close(trace.norm, start[:, moves].norm(dim=1))


def test_globs():
    names = ["token.weight", "blocks.0.norm1.weight", "blocks.1.norm1.weight", "blocks.1.fc1.bias"]
    assert selected(names, ["**"], []) == names
    assert selected(names, ["*.weight"], []) == names[:1]
    assert selected(names, ["blocks.*.norm1.*"], ["blocks.0.**"]) == names[2:3]
    with pytest.raises(ValueError, match="found the pattern block.*expected one that matches"):
        selected(names, ["block.**"], [])
    assert mask(SHAPES, Sampling()) is None


@METHOD
def test_box(method):
    settings = Sampling(method=method, chains=2, box=0.01, **SMALL)
    chains = net_chains([0], settings)
    chains.run()
    far = (chains.sampler.flat - chains.sampler.centre).abs()
    assert 0.005 < far.max() <= 0.01 + 1e-6
    assert (far > 0.0099).float().mean() > 0.3 or method == "sgnht"


# Acceptance


def test_acceptance_is_metropolis_and_hastings():
    w, there = torch.randn(2, 1, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    there, epsilon = w + 0.1 * there, 0.05

    def potential(v):
        return 10 * bowl(v, None) + 1.5 * v.square().sum(1)

    def force(v):
        return 10 * CURVATURE * v + 3 * v

    def proposal(to, start):
        return -(to - start + epsilon / 2 * force(start)).square().sum(1) / (2 * epsilon)

    literal = (potential(w) - potential(there) + proposal(w, there) - proposal(there, w)).exp().clamp(max=1)
    found = acceptance(there - w, potential(w), force(w), potential(there), force(there), torch.tensor([epsilon]))
    torch.testing.assert_close(found, literal)


def test_acceptance_falls_with_the_step():
    settings = Sampling(nbeta=10, gamma=3, chains=3, burn_in=200, draws=1, shared=False)
    epsilon = torch.tensor([1e-4, 1e-2, 8e-2]).repeat_interleave(3)
    chains = chains_of(bowl, settings, torch.zeros(3, 128, dtype=torch.float64), rates={"epsilon": epsilon})
    chains.run()
    small, middle, large = chains.acceptance(20).view(3, 3).mean(1)
    assert small > 0.99 > middle > 0.8 > large
    with pytest.raises(ValueError, match="expected sgld without a box"):
        chains_of(bowl, Sampling(method="sgnht")).acceptance(1)


# Estimators


def trace_of(losses, chains, reference=None, died=None):
    """A trace of given losses (draws, C) or (draws, C, K)."""
    losses = losses.unsqueeze(2) if losses.dim() == 2 else losses
    count = losses.shape[1]
    died = torch.full((count,), -1) if died is None else died
    return Trace(losses, reference, losses.new_ones(losses.shape[:2]) / 10, died, losses.new_ones(count), chains)


def test_llc_and_wbic_are_means_of_means():
    losses = torch.rand(11, 6, 4, generator=torch.Generator().manual_seed(0))
    reference = torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.5, 0.5, 0.5, 0.5]])
    found = local_learning_coefficient(trace_of(losses, 3), torch.tensor([10.0, 20.0]), reference)
    for m, nbeta in enumerate((10, 20)):
        excess = nbeta * (losses[:, 3 * m : 3 * m + 3].double() - reference[m]).mean(0)
        torch.testing.assert_close(found.tokens[m], excess.mean(0))
        torch.testing.assert_close(found.chains[m], excess.mean(1))
        torch.testing.assert_close(found.error[m], excess.mean(1).std() / 3**0.5)
    torch.testing.assert_close(found.mean, found.tokens.mean(1))
    torch.testing.assert_close(wbic(trace_of(losses, 3), 50)[1], 50 * losses[:, 3:].double().mean())


def test_diverged_chains_are_left_out():
    losses = torch.rand(9, 4)
    lost = losses.clone()
    lost[4:, 1] = torch.nan
    found = local_learning_coefficient(trace_of(lost, 4, died=torch.tensor([-1, 4, -1, -1])), 5.0, torch.zeros(1))
    rest = local_learning_coefficient(trace_of(losses[:, [0, 2, 3]], 3), 5.0, torch.zeros(1))
    torch.testing.assert_close((found.mean, found.error), (rest.mean, rest.error))
    assert found.chains[0].isnan().tolist() == [False, True, False, False]
    assert standard_error(torch.tensor([[1.0, torch.nan]]), 1).isnan().all()


def test_singular_fluctuation_of_a_regular_model_is_half_its_weights():
    """Linear regression of d weights in its own noise: nu = d / 2 (Watanabe 2010)."""
    source, n, d = torch.Generator().manual_seed(0), 2000, 4
    x = torch.randn(n, d, generator=source, dtype=torch.float64)
    y = torch.randn(n, generator=source, dtype=torch.float64)
    best = torch.linalg.lstsq(x, y[:, None]).solution[:, 0]

    def likelihood(params, batch):
        return (y - params @ x.T).square() / 2

    settings = Sampling(epsilon=1e-4, nbeta=n, gamma=0, chains=16, burn_in=100, draws=400, batch=0)
    trace = chains_of(likelihood, settings, best[None], parts=n).run()
    assert singular_fluctuation(trace, n).item() == pytest.approx(d / 2, rel=0.1)
    base = likelihood(best[None], None).mean()
    assert local_learning_coefficient(trace, n, base).mean.item() == pytest.approx(d / 2 / (1 - 0.05), rel=0.1)


def test_loss_covariance():
    losses = torch.rand(20, 2, 3, dtype=torch.float64)
    literal = (torch.cov(losses[:, 0].T) + torch.cov(losses[:, 1].T)) / 2
    torch.testing.assert_close(loss_covariance(trace_of(losses, 2))[0], literal)


def test_paired_and_full_references_agree_and_paired_is_steadier():
    settings = Sampling(chains=4, reference="paired", **SMALL | {"draws": 200, "gamma": 3000.0})
    still = Replicas([NETS[1]] * 4, batched=True)
    trace = net_chains([1], settings, loss=lambda params, batch: still.each(measure, *batch)[1]).run()
    paired = local_learning_coefficient(trace, 50.0)
    full = local_learning_coefficient(trace, 50.0, measure(NETS[1], *DATA)[0].detach())
    assert abs(paired.mean - full.mean) < 4 * (paired.error + full.error)
    assert (trace.losses - trace.reference).std() < 0.5 * trace.losses.std()
    with pytest.raises(ValueError, match="found no loss"):
        net_chains([1], settings)


# Health


def findings(trace, settings, reference=NOTHING, **more):
    """The report, kind -> finding."""
    estimate = local_learning_coefficient(trace, settings.nbeta, reference)
    return {found.kind: found for found in examine(trace, estimate, settings, **more).findings}


def steady(level, chains=4, draws=80):
    """Losses about a level, without trend."""
    return level + 1e-3 * torch.randn(draws, chains, generator=torch.Generator().manual_seed(1))


def test_a_diverging_chain_stops_is_named_and_leaves_the_others_alone():
    settings = Sampling(nbeta=10, gamma=3, chains=4, first=2, draws=60, epsilon=1e-2)
    epsilon = torch.tensor([1e-2, 1e-2, 0.5, 1e-2])
    chains, sound = chains_of(bowl, settings, rates={"epsilon": epsilon}), chains_of(bowl, settings)
    trace, healthy = chains.run(), sound.run()
    assert torch.equal(trace.losses[:, [0, 1, 3]], healthy.losses[:, [0, 1, 3]])
    step = int(trace.died[2])
    assert step > 0 and (trace.died[[0, 1, 3]] == -1).all()
    assert trace.losses[step:, 2].isfinite().all() and trace.losses[step:, 2].unique().numel() == 1
    found = findings(trace, settings, torch.ones(1))["diverged"]
    assert found.chains == [4]
    assert f"(chain 4): the loss left the finite or exceeded 1e+06, first at step {step}" in str(found)
    assert str(found).endswith("lower epsilon below 0.0025")


@METHOD
def test_any_sampler_survives_a_chain_that_is_not_finite(method):
    def broken(params, batch):
        return bowl(params, batch) / torch.tensor([1.0, 0.0]).to(params)

    chains = chains_of(broken, Sampling(method=method, chains=2, draws=5))
    trace = chains.run()
    assert trace.died.tolist() == [-1, 0] and trace.losses[:, 0].isfinite().all()
    assert not chains.sampler.flat[1].any() and chains.sampler.flat[0].isfinite().all()


def test_a_saturated_chain_is_told():
    settings = Sampling(nbeta=10, gamma=6.67)
    losses = steady(4.43)
    losses[:, 2] -= 2.3
    found = findings(trace_of(losses, 4), settings, torch.tensor([2.0]), trivial=4.125)["saturated"]
    assert found.chains == [0, 1, 3]
    assert "sampled loss 4.43 is 114% of the way from w* (2) to the trivial predictor (4.125)" in str(found)
    assert "raise gamma above 6.67" in str(found)
    assert "no better than trivial" in findings(trace_of(steady(4.43), 4), settings, torch.tensor([4.3]), trivial=4.125)


def test_a_negative_llc_is_told():
    """A centre that is no minimum: the chains go down, and that they are not at rest is told too."""

    def slope(params, batch):
        return bowl(params, batch) - 2 * params.sum(1)

    settings = Sampling(nbeta=10, gamma=3, epsilon=1e-3, chains=3, draws=80)
    told = findings(chains_of(slope, settings).run(), settings, torch.ones(1))
    assert told["negative LLC"].chains == [0, 1, 2] and "raise gamma" in str(told["negative LLC"])
    assert "chains find a loss below that of w*" in str(told["negative LLC"])
    assert "the LLC falls by" in str(told["not burnt in"]) and "raise burn_in to 80" in str(told["not burnt in"])


def test_steps_distances_and_noise_are_told():
    settings = Sampling(epsilon=0.01, nbeta=10, gamma=6)
    trace = trace_of(steady(1.0), 4)
    sharp = findings(trace, settings, sharpness=torch.tensor([477.0]))["unstable step"]
    assert "is 48, it explodes from 4 on; lower epsilon to 0.0001" in str(sharp)
    assert "large step" in findings(trace, settings, sharpness=torch.tensor([10.0]))
    assert "accept 10% of the steps" in str(
        findings(trace, settings, acceptance=torch.full((4,), 0.1))["rejected steps"]
    )
    trace.distance.fill_(2.0)
    assert "chains are 2 |w*| away from w*; raise gamma to 96" in str(findings(trace, settings)["not local"])
    loud = findings(trace_of(steady(0.0), 4), settings)["noisy"]
    assert "raise draws to" in str(loud)


def test_a_sound_estimate_is_left_alone():
    settings = Sampling(nbeta=10, gamma=3, epsilon=1e-3, chains=4, burn_in=800, draws=400)
    chains = chains_of(bowl, settings)
    trace = chains.run()
    trace.norm.fill_(20.0)
    told = examine(trace, local_learning_coefficient(trace, 10.0, torch.ones(1)), settings, trivial=50.0)
    assert not told.findings and str(told) == "no chain diverged, and nothing else was found"


# The reference library


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_devinterp_takes_the_same_steps():
    """Same noise, same weights: its SGLD class on one tensor of weights."""
    reference = pytest.importorskip("devinterp.optim.sgld")
    settings = Sampling(epsilon=1e-3, nbeta=10, gamma=3, chains=1, draws=50)
    start = torch.linspace(-1, 1, 128)[None]
    chains = chains_of(bowl, settings, start.clone())
    trace = chains.run()
    weight, losses = nn.Parameter(start[0].clone()), []
    optimiser = reference.SGLD([weight], lr=1e-3, nbeta=10, localization=3)
    (noise,) = settings.generators(torch.device("cpu"), "noise", 1)
    for _ in range(50):
        optimiser.zero_grad()
        loss = bowl(weight[None], None)[0]
        losses.append(loss.item())
        loss.backward()
        optimiser.step(noise_generator=noise)
    torch.testing.assert_close(trace.losses[:, 0, 0], torch.tensor(losses), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(chains.sampler.flat[0], weight.detach(), atol=1e-5, rtol=1e-5)
