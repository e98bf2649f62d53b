"""Slingshots: sudden jumps of the train loss that heal (paper Fig 8; Thilak et al. 2022)."""

import numpy as np

from layernorm_grok.estimators.times import LOSS


def slingshots(steps, train_loss, factor: float = 10.0, window: int = 3, floor: float = LOSS) -> list[int]:
    """Steps at which a jump of the loss (T,) over steps (T,) begins that later heals; NaN is passed over.

    A jump: at least `factor` times the lowest of the `window` evaluations before, and at least `floor`, since below it the
    train set is fitted either way. It has healed at the first evaluation at most 1 / `factor` of its peak; until then nothing
    counts as another one. A slower rise is none, nor is a jump that never heals. What happens between two evaluations is not
    seen: counts compare only where those are equally far apart.
    """
    loss = np.asarray(train_loss, dtype=float)
    known = np.isfinite(loss)
    loss, steps = loss[known], np.asarray(steps)[known]
    starts, healed, jump = [], 0, None
    for now in range(1, len(loss)):
        if jump is None:
            before = loss[max(now - window, healed) : now].min()
            jump = now if loss[now] >= max(factor * before, floor) else None
        elif loss[now] <= loss[jump:now].max() / factor:
            starts.append(int(steps[jump]))
            healed, jump = now, None
    return starts
