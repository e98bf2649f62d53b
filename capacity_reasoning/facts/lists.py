"""What a person may be called and have: lists of names and of attribute values (Johnston & Belrose, arXiv 2502.03490).

Only how many there are, and how often each is drawn, enters an entropy. The paper's names are the US lists of NameDatabases;
the package `names` holds the same ones. Its cities, universities and employers stand in no package: as many are made up.
"""

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from common.config import UserError

ATTRIBUTES = ("birth_date", "birth_city", "university", "employer")
RELATIONS = (
    "parent", "child", "best_friend", "worst_enemy", "sibling", "spouse", "cousin", "grandparent", "grandchild",
    "business_partner", "protege", "mentor", "betrayer", "debtor", "blackmailer", "hero", "evil_twin",
)  # fmt: skip
"""In the paper's order: a dataset of R relations has the first R."""

SIZES = {"first": 5163, "last": 88_799, "birth_city": 223, "university": 100, "employer": 73}
"""Of the paper's lists."""
PACKAGE_FILES = {"first": ("dist.female.first", "dist.male.first"), "last": ("dist.all.last",)}
CLONE_FILES = {"first": "NamesDatabases/first names/us.txt", "last": "NamesDatabases/surnames/us.txt"}
SYLLABLES = tuple(consonant + vowel for consonant in "bcdfghjklmnprstv" for vowel in "aeiou")
STATES = 50


@dataclass(frozen=True, eq=False)
class Values:
    """Values of an attribute, and the law by which people get theirs."""

    texts: tuple[str, ...]
    weights: np.ndarray
    """How often each is drawn, in proportion (V,), integers."""

    @property
    def entropy(self) -> float:
        """Bits of one draw."""
        p = self.weights / self.weights.sum()
        return float(-(p * np.log2(p)).sum())


@dataclass(frozen=True, eq=False)
class Lists:
    """First and middle names come from one list, as in the paper."""

    first: tuple[str, ...]
    middle: tuple[str, ...]
    last: tuple[str, ...]
    values: tuple[Values, ...]
    """In the order of ATTRIBUTES."""

    @property
    def full_names(self) -> int:
        """N0, the number of full names that can be made."""
        return len(self.first) * len(self.middle) * len(self.last)


def lists(names: int = 0, values: int = 0, names_dir: str | None = None, lists_dir: str | None = None) -> Lists:
    """Lists to draw people from.

    names: how many of each list of names (0: all, 5163 first and middle ones and 88,799 last ones), always the same ones of a
    fixed permutation, so that populations share a vocabulary. values: how many of each attribute, all alike (0: the paper's,
    67,200 dates by their law and 223, 100 and 73 values). names_dir: a clone of NameDatabases; without one the package
    `names`, and without that made-up names, as many. lists_dir: a folder of birth_city.txt, university.txt and
    employer.txt, one value a line; without one they are made up.
    Raises UserError for a file that cannot be read and for more names or values than there are.
    """
    first, last = (_cut(_names(kind, names, names_dir), names, kind, "--data.names") for kind in ("first", "last"))
    dates = birth_dates()
    if values:
        dates = uniform(_cut(dates.texts, values, "birth_date", "--data.values"))
    texts = [_texts(attribute, values, lists_dir) for attribute in ATTRIBUTES[1:]]
    return Lists(first, first, last, (dates, *map(uniform, texts)))


def uniform(texts: tuple[str, ...]) -> Values:
    """Each as often as any other."""
    return Values(texts, np.ones(len(texts), dtype=np.int64))


@cache
def birth_dates() -> Values:
    """Each day from 1900-01-01 to 2099-12-30 alike, its day of the month then cut to 28: 67,200 dates, 15.9499 bits."""
    days = np.arange("1900-01-01", "2099-12-31", dtype="datetime64[D]")
    months = days.astype("datetime64[M]")
    dates, weights = np.unique(months + np.minimum(days - months, np.timedelta64(27, "D")), return_counts=True)
    return Values(tuple(np.datetime_as_string(dates).tolist()), weights)


def words(count: int, name: str) -> tuple[str, ...]:
    """Made-up words of three syllables or more, all different, of the stream `name`; the first ones do not depend on count."""
    base, syllables = len(SYLLABLES), 3
    while base**syllables < count:
        syllables += 1
    codes = np.random.default_rng(list(name.encode())).permutation(base**syllables)[:count]
    digits = codes[:, None] // base ** np.arange(syllables) % base
    return tuple("".join(SYLLABLES[digit] for digit in word).title() for word in digits.tolist())


def _names(kind: str, count: int, names_dir: str | None) -> tuple[str, ...]:
    """All names of a kind, sorted, from the first source that there is."""
    if names_dir is not None:
        return _lines(Path(names_dir) / CLONE_FILES[kind], "--data.names_dir with a clone of NameDatabases")
    if files := _package_files(kind):
        lines = [line for file in files for line in file.read_text().splitlines()]
        return tuple(sorted({line.split()[0].title() for line in lines}))
    return tuple(sorted(words(max(count, SIZES[kind]), kind)))


def _package_files(kind: str) -> list[Path]:
    """Data files of the package `names`, which is not imported: its code draws names at random. Empty without it."""
    package = find_spec("names")
    folders = package.submodule_search_locations if package else None
    files = [Path(folder) / name for folder in folders or () for name in PACKAGE_FILES[kind]]
    return files if all(file.is_file() for file in files) else []


def _texts(attribute: str, count: int, lists_dir: str | None) -> tuple[str, ...]:
    """The values of an attribute, `count` of them or all."""
    if lists_dir is not None:
        found = _lines(Path(lists_dir) / f"{attribute}.txt", "--data.lists_dir with a folder of such files")
    else:
        found = _made_up(attribute, max(count, SIZES[attribute]))
    return _cut(found, count, attribute, "--data.values")


def _made_up(attribute: str, count: int) -> tuple[str, ...]:
    """Towns with their state, universities and employers, all different."""
    towns = words(count, attribute)
    if attribute == "birth_city":
        states = words(STATES, "state")
        return tuple(f"{town}, {states[number % STATES]}" for number, town in enumerate(towns))
    forms = {
        "university": ("University of {}", "{} University", "{} College"),
        "employer": ("{} Inc", "{} Group", "{}"),
    }
    return tuple(forms[attribute][number % 3].format(town) for number, town in enumerate(towns))


def _lines(path: Path, mend: str) -> tuple[str, ...]:
    """The different lines of a file that are not empty, sorted; raises UserError where there are none."""
    try:
        lines = {line.strip() for line in path.read_text(encoding="utf-8").splitlines()} - {""}
    except (OSError, UnicodeDecodeError):
        lines = set()
    if not lines:
        raise UserError(f"found no text at {path}, expected one a line; mend: {mend}")
    return tuple(sorted(lines))


def _cut(texts: tuple[str, ...], count: int, kind: str, flag: str) -> tuple[str, ...]:
    """The first `count` of a fixed permutation, sorted; all of them for 0."""
    if count > len(texts):
        raise UserError(f"found {len(texts)} different values of {kind}, expected {count}; mend: {flag} {len(texts)}")
    chosen = np.random.default_rng(0).permutation(len(texts))[: count or None]
    return tuple(texts[number] for number in sorted(chosen))
