"""People as a data set of the `datasets` library, in the format of the paper's public ones (EleutherAI/profiles_dataset_*).

Columns: name, index, birth_date (timestamp[s]), birth_city, university, employer, then a struct {name, index} per relation,
with an empty name and the index -1 for nobody. Beside them people.json: seed, mode and the lists that people were drawn from.
"""

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from capacity_reasoning.facts.lists import ATTRIBUTES, RELATIONS, Lists, Values, lists, uniform
from capacity_reasoning.facts.people import NOBODY, Mode, People
from common.config import UserError
from common.plain import make_folder, read_json, write_json

if TYPE_CHECKING:
    import pyarrow as pa

DRAWN_FROM = "people.json"
MEND = "mend: python capacity_reasoning/generate_profiles.py --folder FOLDER"


def save(people: People, folder: str | Path, seed: int, mode: Mode) -> None:
    """Write a folder that `load` and `datasets.load_from_disk` read; it is there whole or not at all.

    Raises UserError where there is something already, or no package `datasets`.
    """
    folder = Path(folder)
    if folder.exists():
        raise UserError(f"found {folder}, expected nothing there; mend: another folder, or rm -r {folder}")
    datasets = _datasets()
    work = folder.with_name(f".{folder.name}.{os.getpid()}")
    make_folder(folder.parent)
    try:
        datasets.Dataset(_table(people)).save_to_disk(work)
        write_json(work / DRAWN_FROM, {"seed": seed, "mode": mode, **_plain(people.lists)})
        os.replace(work, folder)
    except FileNotFoundError:
        raise UserError(
            f"found no folder to write in at {folder.parent}, expected one; mend: give another folder"
        ) from None
    finally:
        shutil.rmtree(work, ignore_errors=True)


def load(place: str | Path, hub: bool = False) -> People:
    """People of a folder that `save` or `save_to_disk` wrote or, with hub, of a data set's name on the Hugging Face hub.

    Lists are those beside the data, else the paper's; a list that lacks a value of the data is made of the data's, all alike.
    Raises UserError for no data there, no network, a missing column, and an index that does not fit.
    """
    table = _from_hub(str(place)) if hub else _from_folder(Path(place))
    _check_columns(table, place)
    N = table.num_rows
    index = table["index"].to_numpy()
    if not N or not np.array_equal(np.sort(index), np.arange(N)):
        raise UserError(f"found {N} people in {place}, expected each number below it once as index; {MEND}")
    table = table.take(np.argsort(index)).combine_chunks()
    drawn_from = Path(place) / DRAWN_FROM
    known = _lists(read_json(drawn_from, dict, MEND), place) if drawn_from.is_file() else lists()
    names, name_lists = _names(table["name"], known, place)
    attributes, values = zip(
        *(_attribute(table[a], v) for a, v in zip(ATTRIBUTES, known.values, strict=True)), strict=True
    )
    relations = [_relation(table, relation, place) for relation in _relations(table)]
    return People(Lists(*name_lists, values), names, np.stack(attributes, axis=1), np.stack(relations, axis=1))


def _datasets():
    """The library, without its bars; raises UserError where it is not installed."""
    try:
        import datasets
    except ImportError:
        raise UserError(
            "found no package datasets, expected it for stored people; mend: pip install datasets"
        ) from None
    datasets.disable_progress_bars()
    return datasets


def _table(people: People) -> "pa.Table":
    """One row per person."""
    import pyarrow as pa
    import pyarrow.compute as pc

    parts = (people.lists.first, people.lists.middle, people.lists.last)
    names = pc.binary_join_element_wise(
        *(pa.array(t).take(pa.array(c)) for t, c in zip(parts, people.names.T, strict=True)), " "
    )
    columns = {"name": names, "index": pa.array(np.arange(people.N, dtype=np.int32))}
    for attribute, values, places in zip(ATTRIBUTES, people.lists.values, people.attributes.T, strict=True):
        columns[attribute] = pa.array(values.texts).take(pa.array(places))
    columns["birth_date"] = columns["birth_date"].cast(pa.date32()).cast(pa.timestamp("s"))
    # NOBODY is the last of these, as -1 is everywhere in numpy
    named = pa.concat_arrays([names, pa.array([""])])
    for relation, persons in zip(people.subjects[len(ATTRIBUTES) :], people.relations.T, strict=True):
        told = named.take(pa.array(persons % (people.N + 1)))
        columns[relation] = pa.StructArray.from_arrays([told, pa.array(persons)], names=["name", "index"])
    return pa.table(columns)


def _plain(lists: Lists) -> dict:
    names = {kind: getattr(lists, kind) for kind in ("first", "middle", "last")}
    values = {a: {"texts": v.texts, "weights": v.weights} for a, v in zip(ATTRIBUTES, lists.values, strict=True)}
    return {"sizes": {kind: len(texts) for kind, texts in names.items()}, "names": names, "values": values}


def _lists(saved: dict, place: str | Path) -> Lists:
    try:
        values = [Values(tuple(v["texts"]), np.array(v["weights"])) for v in (saved["values"][a] for a in ATTRIBUTES)]
        return Lists(*(tuple(saved["names"][kind]) for kind in ("first", "middle", "last")), tuple(values))
    except (KeyError, TypeError) as error:
        raise UserError(
            f"found no {error} in {Path(place) / DRAWN_FROM}, expected the lists drawn from; {MEND}"
        ) from None


def _from_folder(folder: Path) -> "pa.Table":
    if not folder.is_dir():
        raise UserError(f"found no folder {folder}, expected stored people; {MEND}")
    try:
        return _datasets().load_from_disk(folder).with_format("arrow")[:]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"found {type(error).__name__} in {folder}, expected stored people; {MEND}") from None


def _from_hub(name: str) -> "pa.Table":
    datasets = _datasets()
    try:
        return datasets.load_dataset(name, split="train").with_format("arrow")[:]
    except Exception as error:
        # What a hub, a network or a file format can raise has no class in common.
        told = " ".join(str(error).split())[:120]
        raise UserError(
            f"found no data set {name} ({type(error).__name__}: {told}), expected one on the hub; mend with a network and the "
            "right name, or without: python capacity_reasoning/generate_profiles.py"
        ) from None


def _relations(table: "pa.Table") -> tuple[str, ...]:
    """The relations that the table has; at least the first is expected."""
    return RELATIONS[: max(1, len(set(RELATIONS) & set(table.column_names)))]


def _check_columns(table: "pa.Table", place: str | Path) -> None:
    import pyarrow as pa

    for column in ("name", "index", *ATTRIBUTES, *_relations(table)):
        if column not in table.column_names or table[column].null_count:
            raise UserError(f"found no column {column}, or empty places in it, in {place}, expected it whole; {MEND}")
    for relation in _relations(table):
        kind = table[relation].type
        if not (pa.types.is_struct(kind) and {"name", "index"} <= {field.name for field in kind}):
            raise UserError(f"found {kind} as {relation} in {place}, expected a struct of name and index; {MEND}")


def _names(column: "pa.ChunkedArray", known: Lists, place: str | Path) -> tuple[np.ndarray, list[tuple[str, ...]]]:
    """Places (N, 3) of full names in lists of first, middle and last names, and these lists."""
    import pyarrow.compute as pc

    parts = pc.split_pattern(column, " ", max_splits=2)
    if pc.min(pc.list_value_length(parts)).as_py() < 3:
        raise UserError(f"found a name of fewer than three words in {place}, expected first, middle and last; {MEND}")
    kinds = enumerate((known.first, known.middle, known.last))
    places, texts = zip(*(_places(pc.list_element(parts, part), texts) for part, texts in kinds), strict=True)
    return np.stack(places, axis=1), list(texts)


def _attribute(column: "pa.ChunkedArray", known: Values) -> tuple[np.ndarray, Values]:
    """Places (N,) of an attribute's values in a list, and the list."""
    import pyarrow as pa

    column = column.cast(pa.date32()) if pa.types.is_timestamp(column.type) else column
    places, texts = _places(column.cast(pa.string()), known.texts)
    return places, known if texts is known.texts else uniform(texts)


def _places(column: "pa.ChunkedArray", known: tuple[str, ...]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Places (N,) of texts in `known` or, where that lacks one, in the sorted texts of the column; and that list."""
    import pyarrow as pa
    import pyarrow.compute as pc

    found = pc.index_in(column, value_set=pa.array(known))
    if not found.null_count:
        return found.to_numpy().astype(np.int32), known
    return _places(column, tuple(sorted(column.unique().to_pylist())))


def _relation(table: "pa.Table", relation: str, place: str | Path) -> np.ndarray:
    """Persons (N,) that a relation names."""
    import pyarrow as pa
    import pyarrow.compute as pc

    told, index = (pc.struct_field(table[relation], field) for field in ("name", "index"))
    persons = pc.fill_null(index.cast(pa.int64()), table.num_rows).to_numpy()
    named = pa.concat_arrays([*table["name"].chunks, pa.array([""])])
    fits = persons.min() >= NOBODY and persons.max() < table.num_rows
    if not fits or not pc.equal(told, named.take(pa.array(persons % len(named)))).to_numpy().all():
        raise UserError(
            f"found a {relation} in {place} whose name is not that of its index, expected both alike; {MEND}"
        )
    return persons.astype(np.int32)
