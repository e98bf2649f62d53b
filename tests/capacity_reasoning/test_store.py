"""People written and read back, the paper's public format, the hub without a network, the script that writes them."""

import datetime
import json

import numpy as np
import pytest

from capacity_reasoning.facts.lists import ATTRIBUTES, RELATIONS, lists
from capacity_reasoning.facts.people import draw
from capacity_reasoning.facts.store import load, save
from capacity_reasoning.generate_profiles import Config, main
from common.config import UserError

datasets = pytest.importorskip("datasets")
SMALL = lists(names=12, values=8)


def assert_alike(people, other):
    for name in ("names", "attributes", "relations"):
        ours, theirs = getattr(people, name), getattr(other, name)
        assert ours.dtype == theirs.dtype and np.array_equal(ours, theirs)
    for name in ("first", "middle", "last"):
        assert getattr(people.lists, name) == getattr(other.lists, name)
    for values, theirs in zip(people.lists.values, other.lists.values, strict=True):
        assert values.texts == theirs.texts and np.array_equal(values.weights, theirs.weights)


@pytest.mark.parametrize(
    ("drawn_from", "N", "R", "mode"),
    [(SMALL, 50, 4, "bipartite_classic"), (SMALL, 51, 17, "uniform"), (lists(), 100, 17, "structured")],
)
def test_people_come_back_as_they_were(tmp_path, drawn_from, N, R, mode):
    people = draw(drawn_from, N, R, mode, 0)
    save(people, tmp_path / "people", 0, mode)
    assert_alike(people, load(tmp_path / "people"))


def test_the_columns_are_those_of_the_public_sets(tmp_path):
    people = draw(SMALL, 50, 4, "bipartite_classic", 3)
    save(people, tmp_path / "people", 3, "bipartite_classic")
    rows = datasets.load_from_disk(tmp_path / "people")
    assert rows.column_names == ["name", "index", *ATTRIBUTES, *RELATIONS[:4]]
    assert rows.features["birth_date"].dtype == "timestamp[s]" and rows.features["index"].dtype == "int32"
    for person, row in enumerate(rows):
        assert (row["name"], row["index"]) == (people.name(person), person)
        assert row["birth_date"].strftime("%Y-%m-%d") == people.value(person, 0)
        assert [row[attribute] for attribute in ATTRIBUTES[1:]] == [people.value(person, a) for a in (1, 2, 3)]
        for relation, other in zip(RELATIONS, people.relations[person], strict=False):
            assert row[relation] == {"name": people.name(other) if other >= 0 else "", "index": other}
    told = json.loads((tmp_path / "people" / "people.json").read_text())
    assert (told["seed"], told["mode"]) == (3, "bipartite_classic") and told["sizes"]["first"] == 12


def public(**changes) -> dict:
    """Columns of three people, out of order, as the authors store them."""
    names = ["Mary Ann Smith", "James Lee Van Horn", "Zzyx Mary Smith"]
    columns = {
        "name": [names[1], names[0], names[2]],
        "index": [1, 0, 2],
        "birth_date": [datetime.datetime(1950, 2, 28), datetime.datetime(1900, 1, 1), datetime.datetime(2099, 12, 28)],
        "birth_city": ["Perth, Western Australia", "Hobart, Tasmania", "Hobart, Tasmania"],
        "university": ["Fudan University", "Fudan University", "Tongji University"],
        "employer": ["Infosys", "Wipro", "Infosys"],
        "parent": [{"name": names[1], "index": 1}, {"name": names[2], "index": 2}, {"name": "", "index": -1}],
        "child": [{"name": names[0], "index": 0}] * 3,
        "bio": ["", "", ""],
    }
    return columns | changes


def stored(folder, columns: dict):
    kept = {name: values for name, values in columns.items() if values is not None}
    datasets.Dataset.from_dict(kept).save_to_disk(folder)
    return folder


def assert_public(people):
    assert (people.N, people.R) == (3, 2)
    assert [people.name(person) for person in range(3)] == ["Mary Ann Smith", "James Lee Van Horn", "Zzyx Mary Smith"]
    assert people.relations.tolist() == [[2, 0], [1, 0], [-1, 0]]
    told = [people.value(1, subject) for subject in range(4)]
    assert told == ["1950-02-28", "Perth, Western Australia", "Fudan University", "Infosys"]
    # What the paper's lists lack becomes a list of what is found; what they hold keeps the paper's law.
    assert people.lists.first == ("James", "Mary", "Zzyx") and people.lists.last == ("Smith", "Van Horn")
    assert people.lists.values[3].texts == ("Infosys", "Wipro") and people.lists.values[3].entropy == 1.0
    assert people.lists.values[0].entropy == pytest.approx(15.9499, abs=5e-5)


def test_the_public_format_from_a_folder(tmp_path):
    assert_public(load(stored(tmp_path / "public", public())))


def test_the_public_format_by_the_hub_s_way_in(tmp_path, monkeypatch):
    """`load_dataset` of a folder of parquet files, as a set on the hub is; no network."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "set").mkdir()
    datasets.Dataset.from_dict(public()).to_parquet(tmp_path / "set" / "train.parquet")
    assert_public(load(str(tmp_path / "set"), hub=True))


def test_a_hub_that_does_not_answer(monkeypatch):
    def nobody(name, split):
        raise ConnectionError(f"Couldn't reach\n{name}")

    monkeypatch.setattr(datasets, "load_dataset", nobody)
    name = "EleutherAI/profiles_dataset_1000_uniform_r17"
    with pytest.raises(
        UserError, match=f"found no data set {name} .ConnectionError: Couldn't reach {name}.*generate_pro"
    ):
        load(name, hub=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"employer": None}, "found no column employer"),
        ({"university": ["Fudan University", None, "Fudan University"]}, "found no column university, or empty places"),
        ({"parent": None, "child": None}, "found no column parent"),
        ({"parent": None}, "found no column parent"),
        ({"child": ["a", "b", "c"]}, "found string as child"),
        ({"index": [1, 0, 1]}, "found 3 people .* expected each number below it once as index"),
        ({"name": ["James Lee Van Horn", "Mary Smith", "Zzyx Mary Smith"]}, "found a name of fewer than three words"),
        (
            {"child": [{"name": "Mary Ann Smith", "index": 1}] * 3},
            "found a child .* whose name is not that of its index",
        ),
        (
            {"child": [{"name": "Mary Ann Smith", "index": 3}] * 3},
            "found a child .* whose name is not that of its index",
        ),
        ({"child": [{"name": None, "index": 1}] * 3}, "found a child .* whose name is not that of its index"),
        ({"child": [{"name": "Mary Ann Smith", "index": 2**32}] * 3}, "found a child .* whose name is not that"),
        ({"child": [{"name": None, "index": None}] * 3}, "found a child .* whose name is not that of its index"),
    ],
)
def test_columns_that_do_not_fit(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        load(stored(tmp_path / "public", public(**changes)))


def test_folders_that_do_not_fit(tmp_path):
    with pytest.raises(UserError, match="found no folder .*nowhere, expected stored people; mend: python capacity"):
        load(tmp_path / "nowhere")
    with pytest.raises(UserError, match="found FileNotFoundError in"):
        load(tmp_path)
    save(draw(SMALL, 10, 1, "uniform", 0), tmp_path / "people", 0, "uniform")
    with pytest.raises(UserError, match="found .*people, expected nothing there; mend: another folder, or rm -r"):
        save(draw(SMALL, 10, 1, "uniform", 0), tmp_path / "people", 0, "uniform")
    (tmp_path / "people" / "people.json").write_text("{}")
    with pytest.raises(UserError, match="found no 'values' in .*people.json"):
        load(tmp_path / "people")


def test_the_script(tmp_path, capsys):
    settings = Config(N=100, R=4, relations="structured", seed=2, folder=str(tmp_path / "people"), names=12, values=8)
    main(settings)
    assert_alike(load(tmp_path / "people"), draw(SMALL, 100, 4, "structured", 2))
    assert "100 people with 4 structured relations" in capsys.readouterr().out
    settings.N = 1730
    with pytest.raises(UserError, match="mend: --N 1728, or more --names"):
        main(settings)
