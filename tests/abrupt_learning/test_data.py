"""Data: the laws' moments, integer-exact tokens, masks, levels."""

import math

import pytest
import torch

from abrupt_learning.data import Data, clamped, from_values, local_coherence, sample, tokens
from abrupt_learning.estimators.marginal import entropy_levels


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_paper_vocabulary_and_its_check_values():
    data = Data()
    assert data.vocabulary == 2002
    values = torch.tensor([-1.5, -0.24, 0.0, 0.44, 1.0, 1.5])
    k = (values * 100).round().long()
    assert tokens(k, torch.ones(6, dtype=torch.bool), data.half).tolist() == [851, 977, 1001, 1045, 1101, 1151]


@pytest.mark.parametrize("precision", [1, 2, 3])
def test_every_value_of_the_vocabulary_goes_round_and_a_sign_flip_mirrors_it(precision):
    """The authors' truncation lands 36 of the 2001 values on a neighbour's id."""
    data = Data(precision=precision)
    k = torch.arange(-data.half, data.half + 1)
    batch = from_values((k / 10**precision)[None], torch.ones(1, len(k), dtype=torch.bool), data)
    assert torch.equal(batch.ids[0], k + data.half + 1)
    assert torch.equal(data.vocabulary - batch.ids[0], from_values(-batch.target, batch.observed, data).ids[0])
    assert batch.ids.min() == 1
    assert batch.ids.max() == data.vocabulary - 1


@pytest.mark.parametrize(
    "change", [{}, {"rank": 1}, {"low": 0.0}, {"law": "gaussian", "scale": 0.5}, {"law": "laplace", "scale": 0.25}]
)
def test_variance_and_mask_rate(change):
    data = Data(**change)
    batch = sample(data, 40_000, generator())
    squares = batch.target.square().mean(1)
    assert abs(float(squares.mean()) - data.variance) < 5 * float(squares.std()) / 200
    assert abs(float(batch.observed.double().mean()) - 0.7) < 5 * math.sqrt(0.21 / batch.observed.numel())
    assert Data(rank=2).variance == pytest.approx(2 / 9)


def test_rank_bounds_and_hidden_ids():
    data = Data(sizes=[[6, 5]], rank=2, precision=6, limit=3.0)
    batch = sample(data, 50, generator())
    singular = torch.linalg.svdvals(batch.target.view(50, 6, 5).double())
    assert float((singular[:, 2] / singular[:, 0]).max()) < 1e-5
    assert float(singular[:, 1].min()) > 1e-4
    assert float(batch.target.abs().max()) <= 2
    assert torch.equal(batch.ids == 0, ~batch.observed)


def test_same_seed_same_batch_and_targets_are_rounded():
    first, second = (sample(Data(), 64, generator(3)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    hundredths = first.target.double() * 100
    assert float((hundredths - hundredths.round()).abs().max()) < 1e-4


def test_clamping_is_counted():
    data = Data(law="gaussian", scale=1.0)
    assert clamped(data, generator(), 100_000) == pytest.approx(math.exp(-10.005), rel=0.3)
    assert clamped(Data(), generator()) == 0
    narrow = sample(Data(law="gaussian", limit=0.5), 512, generator())
    assert float(narrow.target.abs().max()) == 0.5


def test_exact_and_coherent_masks_hide_exactly_the_asked_number():
    for change in ({"mask": "exact"}, {"mask": "coherent", "coherence": 0.5}, {"mask": "coherent", "coherence": 1.0}):
        batch = sample(Data(**change), 100, generator())
        assert (~batch.observed).sum(1).unique().tolist() == [14]


def test_full_coherence_hides_the_most_coherent_cells():
    data = Data(mask="coherent", coherence=1.0)
    batch = sample(data, 20, generator())
    redo = generator()
    U = torch.rand((20, 7, 2), generator=redo) * 2 - 1
    V = torch.rand((20, 7, 2), generator=redo) * 2 - 1
    coherence = local_coherence(U, V)
    assert torch.all(
        coherence.masked_fill(batch.observed, 99).amin(1) >= coherence.masked_fill(~batch.observed, -99).amax(1)
    )


def test_local_coherence_sums_to_its_closed_form():
    """Squared rows of an orthonormal basis sum to r, so the sum over all cells is m n + m n (once for each side)."""
    U, V = torch.randn(5, 7, 2, generator=generator()), torch.randn(5, 4, 2, generator=generator(1))
    torch.testing.assert_close(local_coherence(U, V).sum(1), torch.full((5,), 2.0 * 28))


def test_exact_masks_have_their_own_share_and_levels():
    data = Data(sizes=[[4, 4]], rank=1, precision=1, limit=1.0, mask="exact", p_mask=0.15)
    batch = sample(data, 20_000, generator())
    assert data.share == 2 / 16 == float((~batch.observed).double().mean())
    assert data.share * data.variance == pytest.approx(
        float((batch.target.square() * ~batch.observed).mean()), rel=0.05
    )
    blank = Data(sizes=[[2, 2]], rank=1, precision=1, limit=1.0, mask="exact", p_mask=0.25)
    entropy = entropy_levels(blank)[0] - entropy_levels(blank)[1]
    masks = 8 * entropy_levels(blank)[1] - 13 / 4 * entropy / (3 / 8)
    assert masks == pytest.approx(math.log(4) + 0.25 * math.log(0.25) + 0.75 * math.log(0.75), abs=1e-9)


def test_levels_of_the_paper():
    assert (Data().share * Data().variance, Data().variance) == pytest.approx((1 / 15, 2 / 9))
    assert entropy_levels(Data(limit=2.0)) == pytest.approx((4.74, 2.90), abs=0.01)


def test_four_cycle_correlation_is_five_ninths():
    """The first informative statistic : corr(x_ij, x_il x_kl x_kj) = 5/9 exactly at rank 1."""
    x = sample(Data(sizes=[[2, 2]], rank=1, precision=6), 400_000, generator()).target.double()
    product = x[:, 1] * x[:, 2] * x[:, 3]
    assert float(torch.corrcoef(torch.stack([x[:, 0], product]))[0, 1]) == pytest.approx(5 / 9, abs=0.01)


def test_a_law_without_width_is_told():
    with pytest.raises(ValueError, match="data.low 1.0 is not below data.high 0.0"):
        Data(low=1.0, high=0.0)


@pytest.mark.parametrize("mask", ["exact", "coherent"])
def test_exact_masks_hide_what_the_decimals_say(mask):
    """0.29 * 100 is 28.999999999999996 in binary."""
    for share, count in ((0.29, 29), (0.57, 57), (0.299, 29), (0.0, 0), (1.0, 100)):
        data = Data(sizes=[[10, 10]], rank=1, p_mask=share, mask=mask)
        assert data.share == count / 100
        assert ((~sample(data, 8, generator()).observed).sum(1) == count).all()


def test_values_beyond_the_vocabulary_are_its_ends_and_nan_is_none():
    data = Data(sizes=[[1, 4]], limit=2.0, precision=1)
    values = torch.tensor([[math.inf, -math.inf, 1e30, -3.0]])
    batch = from_values(values, torch.ones(1, 4, dtype=torch.bool), data)
    assert batch.target.tolist() == [[2.0, -2.0, 2.0, -2.0]] and batch.ids.tolist() == [[41, 1, 41, 1]]
    with pytest.raises(RuntimeError, match="NaN"):
        from_values(torch.full((1, 4), math.nan), torch.ones(1, 4, dtype=torch.bool), data)
