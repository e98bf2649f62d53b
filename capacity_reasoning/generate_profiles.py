"""Write a data set of fictional people in the format of the paper's public ones (Johnston & Belrose, arXiv 2502.03490).

    python capacity_reasoning/generate_profiles.py --N 10000 --R 17 --relations structured --seed 0 --folder people

The folder is read by train.py and by `datasets.load_from_disk`; it takes seconds for N = 250,000 and R = 17.
"""

import common.process  # noqa: F401

import time
from dataclasses import dataclass
from typing import Annotated

from capacity_reasoning.facts.lists import lists
from capacity_reasoning.facts.people import Mode, draw
from capacity_reasoning.facts.store import save
from common import config
from common.config import UserError
from common.limits import Count, Natural, Place, Range, Seed


@dataclass
class Config:
    N: Count = 10_000
    """People."""
    R: Annotated[int, Range(1, 17)] = 17
    """Relations: 4 or 17 in the paper."""
    relations: Mode = "uniform"
    """Anyone at random; inverse pairs and matchings; or the authors' parents and children (R = 4)."""
    seed: Seed = 0
    """Of all that is drawn."""
    folder: Place = "runs/capacity_reasoning/profiles"
    """Where to write; it must not be there yet."""
    names: Natural = 0
    """How many first, middle and last names to draw from; 0: all, 5163, 5163 and 88,799."""
    values: Natural = 0
    """How many values of each attribute, all alike; 0: the paper's 67,200 dates, 223, 100 and 73."""
    names_dir: Place | None = None
    """A clone of NameDatabases; null: the package `names`, or made-up names without it."""
    lists_dir: Place | None = None
    """A folder of birth_city.txt, university.txt and employer.txt, one value a line; null: made-up ones."""


def main(settings: Config) -> None:
    """Draw the people and write them."""
    start = time.monotonic()
    try:
        drawn_from = lists(settings.names, settings.values, settings.names_dir, settings.lists_dir)
        people = draw(drawn_from, settings.N, settings.R, settings.relations, settings.seed)
    except UserError as error:
        # Flags of training have a group; those here have none.
        raise UserError(str(error).replace("--data.", "--")) from None
    drawn = time.monotonic()
    save(people, settings.folder, settings.seed, settings.relations)
    spent = f"{drawn - start:.1f} s to draw, {time.monotonic() - drawn:.1f} s to write"
    print(f"{settings.folder}: {people.N} people with {people.R} {settings.relations} relations, {spent}")


if __name__ == "__main__":
    config.main(main, Config)
