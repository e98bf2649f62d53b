"""Many copies of one model trained in one process: parameters stacked on a leading axis, one optimiser step for all.

A model joins in by using `linear`, `layer_norm` and `embedding` from here: each takes parameters with or without the
leading replica axis, so one plain `nn.Module` serves a single model and a stack of R. Activations of a stack are (R, B, ...).
"""

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W^T + b: (..., n_in) -> (..., n_out), weight (n_out, n_in); or x (R, ..., n_in) with weight (R, n_out, n_in)."""
    if weight.dim() == 2:
        return F.linear(x, weight, bias)
    rows = x.flatten(1, -2)
    out = torch.bmm(rows, weight.mT) if bias is None else torch.baddbmm(bias[:, None], rows, weight.mT)
    return out.unflatten(1, x.shape[1:-1])


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """LayerNorm over the last axis, gain and bias (d,) or stacked (R, d)."""
    if weight.dim() == 1:
        return F.layer_norm(x, weight.shape, weight, bias, eps)
    stacked = (len(weight),) + (1,) * (x.dim() - 2) + (-1,)
    return torch.addcmul(bias.view(stacked), F.layer_norm(x, x.shape[-1:], eps=eps), weight.view(stacked))


def embedding(ids: Tensor, table: Tensor, padding_idx: int | None = None) -> Tensor:
    """Rows of table (V, d) at ids (...); or of a stack (R, V, d) at ids (R, ...). Row padding_idx gets no gradient."""
    if table.dim() == 2:
        return F.embedding(ids, table, padding_idx)
    return torch.stack([F.embedding(i, t, padding_idx) for i, t in zip(ids.unbind(), table.unbind(), strict=True)])


class Replicas:
    """R models of one shape as rows of one matrix `flat` (R, P), with Adam(W) on it.

    batched: one launch for all replicas (best where launches cost most: a GPU, or very small models), or one forward per
    replica. Left open it is True off the CPU; on 2 CPU cores the loop is the faster one down to d = 32 (see bench.py).
    trainable: per replica the parameter names that move; all by default. The others stay bitwise as they were.
    """

    def __init__(self, models: list[nn.Module], trainable: list[set[str]] | None = None, batched: bool | None = None):
        self.skeleton = copy.deepcopy(models[0]).to("meta")
        shapes = {name: p.shape for name, p in models[0].named_parameters()}
        device = next(models[0].parameters()).device
        rows = [torch.cat([p.detach().flatten() for _, p in m.named_parameters()]) for m in models]
        self.shapes = shapes
        self.batched = device.type != "cpu" if batched is None else batched
        self._hold(torch.stack(rows))
        self.moves = None if trainable is None else self.mask(trainable)
        self.mean, self.square = torch.zeros_like(self.flat), torch.zeros_like(self.flat)
        # In double, since 1 - beta2^t loses half its digits in single; 0-dim, so it promotes nothing.
        self.steps = torch.zeros((), device=device, dtype=torch.float32 if device.type == "mps" else torch.float64)
        self.alive = self.flat.new_ones(len(models), 1)

    def __len__(self) -> int:
        return len(self.flat)

    def _hold(self, flat: Tensor) -> None:
        """Make `flat` the weights: stacked views of it in `params`, and views of each row in `leaves`."""
        self.flat = flat
        self.params = self._views(flat)
        self.leaves = [self._views(row) for row in flat]

    def _views(self, flat: Tensor) -> dict[str, Tensor]:
        parts = flat.split([s.numel() for s in self.shapes.values()], dim=-1)
        return {n: c.unflatten(-1, s).requires_grad_() for (n, s), c in zip(self.shapes.items(), parts, strict=True)}

    def mask(self, names: list[set[str]]) -> Tensor:
        """1 over `flat` (R, P) where a weight belongs to one of its replica's `names`, else 0."""
        rows = [[torch.full((p[0].numel(),), float(n in chosen)) for n, p in self.params.items()] for chosen in names]
        return torch.stack([torch.cat(row) for row in rows]).to(self.flat)

    def each(self, function: Callable, *inputs: Tensor) -> tuple[Tensor, ...]:
        """function(model, *inputs) -> tuple of tensors, for every replica on its own inputs (R, ...); results are (R, ...).

        The function is called once, with the stack and whole inputs, if `batched`; else once per replica.
        """
        if self.batched:
            return function(self._model(self.params), *inputs)
        rows = zip(*(x.unbind() for x in inputs), strict=True)
        results = [function(self._model(leaves), *row) for leaves, row in zip(self.leaves, rows, strict=True)]
        return tuple(torch.stack(parts) for parts in zip(*results, strict=True))

    def differentiate(self, function: Callable, *inputs: Tensor) -> tuple[Tensor, ...]:
        """As `each`, and first the gradient (R, P) of the first result, each replica's loss.

        Replica by replica one backward pass follows its own forward pass, while the activations are in the cache.
        """
        if self.batched:
            results = self.each(function, *inputs)
            grads = torch.autograd.grad(results[0].sum(), list(self.params.values()), materialize_grads=True)
            gradient, *results = torch.cat([g.flatten(1) for g in grads], 1), *(r.detach() for r in results)
        else:
            rows = zip(*(x.unbind() for x in inputs), strict=True)
            per_replica = [self._alone(function, leaves, row) for leaves, row in zip(self.leaves, rows, strict=True)]
            gradient, *results = (torch.stack(parts) for parts in zip(*per_replica, strict=True))
        return gradient if self.moves is None else gradient.mul_(self.moves), *results

    def _alone(self, function: Callable, leaves: dict[str, Tensor], inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Gradient (P,) and results of one replica."""
        results = function(self._model(leaves), *inputs)
        grads = torch.autograd.grad(results[0], list(leaves.values()), materialize_grads=True)
        return torch.cat([g.flatten() for g in grads]), *(r.detach() for r in results)

    def _model(self, params: dict[str, Tensor]) -> Callable:
        return lambda *inputs: functional_call(self.skeleton, params, inputs)

    @torch.no_grad()
    def adam(self, gradient: Tensor, lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, clip=None, measure=False):
        """One AdamW step (Loshchilov & Hutter, algorithm 2; Adam where weight_decay is 0).

        gradient: (R, P). lr, weight_decay: numbers, or tensors (R, 1) or (R, P). clip: largest norm of each replica's own
        gradient. With eps 0 a weight whose gradient has been 0 throughout does not move (0/0 counts as 0).
        measure: return the norm of each replica's update, decay included: (R,).
        A replica whose gradient is not finite stops for good (`alive` becomes 0) and leaves the others untouched.
        """
        gradient = self.checked(gradient)
        if clip is not None:
            gradient = gradient * (clip / gradient.norm(dim=1, keepdim=True)).clamp(max=1)
        self.steps += 1
        self.mean.lerp_(gradient, 1 - betas[0])
        self.square.mul_(betas[1]).addcmul_(gradient, gradient, value=1 - betas[1])
        size = lr / (1 - betas[0] ** self.steps)
        denominator = (self.square / (1 - betas[1] ** self.steps)).sqrt_().add_(eps)
        move = self.mean.div(denominator)
        if eps == 0:
            move.masked_fill_(denominator == 0, 0)
        return self._apply(move.mul_(size * self.alive), lr, weight_decay, measure)

    @torch.no_grad()
    def sgd(self, gradient: Tensor, lr, weight_decay=0.0, measure=False):
        """One step of gradient descent with decoupled weight decay; arguments as for `adam`."""
        gradient = self.checked(gradient)
        self.steps += 1
        return self._apply(gradient * (lr * self.alive), lr, weight_decay, measure)

    def checked(self, gradient: Tensor) -> Tensor:
        """The gradient, 0 for replicas that are lost now or were before."""
        self.alive.mul_(gradient.sum(1, keepdim=True).isfinite())
        return torch.where(self.alive.bool(), gradient, 0)

    def _apply(self, move: Tensor, lr, weight_decay, measure: bool) -> Tensor | None:
        """flat <- (1 - lr weight_decay) flat - move."""
        norm = move.norm(dim=1) if measure else None
        if torch.is_tensor(weight_decay) or weight_decay:
            decay = lr * weight_decay * self.alive
            decay = decay if self.moves is None else decay * self.moves
            norm = (self.flat * decay).add_(move).norm(dim=1) if measure else None
            self.flat.mul_(1 - decay)
        self.flat.sub_(move)
        return norm

    def subset(self, keep: list[int]) -> "Replicas":
        """The replicas `keep` as a stack of their own, copied, with their optimiser state."""
        part = copy.copy(self)
        part._hold(self.flat[keep].clone())
        part.mean, part.square, part.alive = (t[keep] for t in (self.mean, self.square, self.alive))
        part.steps = self.steps.clone()
        part.moves = None if self.moves is None else self.moves[keep]
        return part

    @torch.no_grad()
    def absorb(self, part: "Replicas", rows: list[int], places: list[int]) -> None:
        """Rows of this stack become what the replicas at `places` of a `subset` have become."""
        for name in ("flat", "mean", "square", "alive"):
            getattr(self, name)[rows] = getattr(part, name)[places]
        self.steps.copy_(part.steps)

    def weights(self) -> dict[str, Tensor]:
        """Copies of the stacked parameters, name -> (R, ...)."""
        return {n: p.detach().clone(memory_format=torch.contiguous_format) for n, p in self.params.items()}

    def state(self) -> dict[str, Tensor]:
        """All that `restore` needs to go on as if never stopped."""
        return {k: getattr(self, k).clone() for k in ("flat", "mean", "square", "steps", "alive")}

    def restore(self, state: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, value in state.items():
                getattr(self, name).copy_(value)


def pick(weights: dict[str, Tensor], replica: int) -> dict[str, Tensor]:
    """The plain state dict of one replica, from stacked weights."""
    return {name: value[replica] for name, value in weights.items()}
