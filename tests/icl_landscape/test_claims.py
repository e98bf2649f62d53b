"""The thresholds of all claims as they were frozen before the judging seeds were looked at; what no preset measures."""

from icl_landscape.claims import CLAIMS

EXPECTED = {
    "C1": "LLC in LR1 > 0; LLC in LR2 > 0; LR2 / (|LR1| + |LR2|) > 0.5",
    "C2": "of LR1 and LR2, of the type of most seeds > 1.5; "
    "of LR1 and LR2, of type A > 1.5; step of LR1|LR2 / median from 0.333 to 3",
    "C3": "prior score at the end > 1.8; least prior score / sigma^2 < 1; its step / step of ell_K - ell_1 = -1 < 1",
    "C4": "ell_K - ell_1 where the prior score is least > -1; ell_K - ell_1 at the end < -1",
    "C5": "step of half, early / late < 1",
    "C6": "g = 5, end less least > 0.5; g = 10, end less least > 0.5; loss since, end / then < 1",
    "C7": "least token S^2 / sum, end / start < 0.5; directions of the positions, end / start < 0.8",
    "C8": "fraction before the unembedding > 0.3; less that of the most collapsed other > 0",
    "C9": "unembedding / block 1 pre-attention < 1; block 1 pre-attention / any other < 1",
    "C10": "participation ratio at the end < 10; largest rise after its peak / peak < 0.1",
    "C11": "least V of a head, end / start of LR2 < 0.5",
    "C12": "largest eigenvalue / at the prior > 1.5; trace / at the prior > 1.5; "
    "step of the peak / of the prior > 1; largest eigenvalue, end / peak < 0.9",
    "C13": "end / start > 1; largest fall / start < 0.02",
    "C14": "end / start < 0.5; largest rise / start < 0.05",
    "C15": "least rise from k to k + 1 / mean > 0; last k / first k > 3",
    "C16": "",
    "C17": "M = 2 < 1; M = 4 < 1; M = 16 < 1",
    "C18": "size of the data set > 0.8; batch > 0.8; loss > 0.8; sampling seed > 0.8",
    "C19": "not a minimum: negative LLC > 0.5; no exploration: hardly moves > 0.5; "
    "explosion: diverged > 0.5; sound: any of them < 0.5",
}
NOT_AT_QUICK = {"C6", "C8", "C9", "C10", "C18"}


def test_every_threshold_is_as_it_was_frozen():
    assert {claim.id: claim.expected for claim in CLAIMS} == EXPECTED
    measured = [claim for claim in CLAIMS if not claim.not_run]
    assert {claim.id for claim in measured if "quick" not in claim.presets} == NOT_AT_QUICK
    assert all(claim.presets[-3:] == ("medium", "gpu", "paper") for claim in measured)


def test_essential_dynamics_alone_are_not_run():
    assert [claim.id for claim in CLAIMS if claim.not_run] == ["C16"]
