"""Continue a prompt with the model of a trained run, a token at a time from cached keys and values.

python simplifying_blocks/generate.py --run runs/simplifying_blocks/quick/main --prompt "def main("
"""

import common.process  # noqa: F401

from dataclasses import dataclass

import torch

from common import config
from common.config import UserError
from common.device import free_memory, generator
from common.limits import Amount, Count, Device, Natural, Place, Seed, Threads
from simplifying_blocks.evaluate import Trained
from simplifying_blocks.model import Transformer, generate


@dataclass
class Settings:
    run: Place = "runs/simplifying_blocks/quick/main"
    """Run folder whose model writes."""
    prompt: str = ""
    """Text to continue; empty: a new document."""
    length: Count = 64
    """Tokens to add."""
    temperature: Amount = 0.8
    """Tokens are drawn from softmax(logits / temperature); 0: the likeliest."""
    samples: Count = 1
    """Continuations to draw."""
    draws: Seed = 0
    """Seed of the draws."""
    seed: Seed | None = None
    """Training seed of the model; the run's first by default."""
    step: Natural | None = None
    """Checkpoint of the model; the last by default."""
    device: Device = "auto"
    """auto, cpu, cuda or mps."""
    threads: Threads = 0
    """CPU threads; 0 leaves the machine's own choice."""


def model_of(trained: Trained, settings: Settings) -> Transformer:
    """The model that the settings ask for; raises UserError where there is none, or it continues no text."""
    if trained.config.model.objective != "clm":
        raise UserError(
            f"found a masked language model in {settings.run}, which fills gaps and continues no prompt, expected a run with "
            "model.objective clm; give another --run"
        )
    if settings.step is None and not trained.steps:
        raise UserError(
            f"found no checkpoint yet in {trained.checkpoints.place}, expected one; wait, or let it go on: --resume"
        )
    return trained.model(trained.seeds[0] if settings.seed is None else settings.seed, settings.step)


def check_room(model: Transformer, prompt: int, settings: Settings) -> None:
    """Raises UserError where prompt (tokens) and continuation exceed the model's context, or their cache the memory."""
    end, context = prompt + settings.length, model.context
    if context is not None and end > context:
        shorter = f"--length {context - prompt}" if prompt < context else "a shorter --prompt"
        raise UserError(
            f"found a prompt of {prompt} tokens and {settings.length} more, expected at most {context} together, as in "
            f"training; mend with {shorter}, or a run whose train.context is longer or whose positions have no end (alibi)"
        )
    needed = 8 * settings.samples * end * model.config.layers * model.config.d
    if needed > (there := free_memory(model.token.weight.device)):
        raise UserError(
            f"found {settings.samples} texts of {end} tokens, whose keys and values need {needed / 2**30:.3g} GiB, expected at "
            f"most the {there / 2**30:.3g} GiB that are free; mend with a smaller --length or --samples"
        )


def continuations(trained: Trained, settings: Settings) -> list[str]:
    """Texts, the prompt included; raises UserError for what the settings ask and the run has not."""
    model, corpus = model_of(trained, settings), trained.corpus
    ids = corpus.encode(settings.prompt) or [corpus.end]
    check_room(model, len(ids), settings)
    prompts = torch.tensor([ids] * settings.samples, device=trained.device)
    stream = generator(trained.device, settings.draws, "generate")
    made = generate(model, prompts, settings.length, settings.temperature, stream)
    return [settings.prompt + corpus.decode(row) for row in made.tolist()]


def main(settings: Settings) -> None:
    """Print the texts, each below its number where there are several."""
    texts = continuations(Trained(settings.run, settings.device, settings.threads), settings)
    for number, text in enumerate(texts, 1):
        if len(texts) > 1:
            print(f"--- {number} of {len(texts)}")
        print(text)


if __name__ == "__main__":
    config.main(main, Settings)
