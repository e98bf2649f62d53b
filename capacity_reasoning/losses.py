"""Loss of answers: nats summed over the tokens of an answer, then a mean over questions."""

import torch.nn.functional as F
from torch import Tensor

from capacity_reasoning.facts.questions import IGNORED


def token_losses(logits: Tensor, targets: Tensor) -> Tensor:
    """-ln p of each asked token (..., B, A), 0 where nothing is asked; in fp32."""
    flat = F.cross_entropy(logits.flatten(0, -2).float(), targets.flatten(), ignore_index=IGNORED, reduction="none")
    return flat.view(targets.shape)


def objective(model, tokens: Tensor, where: Tensor, targets: Tensor, questions: Tensor) -> tuple[Tensor]:
    """Loss in nats per question of rows (..., B, T), a value per model of a stack: () or (R,)."""
    return (token_losses(model(tokens, where), targets).sum((-2, -1)) / questions,)


def answer_losses(model, tokens: Tensor, where: Tensor, targets: Tensor) -> tuple[Tensor]:
    """Nats of every asked token (..., B, A)."""
    return (token_losses(model(tokens, where), targets),)
