"""Names of placements, the switches they stand for, and what is refused."""

from dataclasses import fields, replace

import pytest

from layernorm_grok.analysis._lives import label
from layernorm_grok.placement import ALIASES, PAPER_NAMES, SWITCHES, Placement

TABLE = {
    "off": "",
    "attn-pre": "q k v",
    "pre": "q k v mlp",
    "mlp-pre": "mlp",
    "attn-pre-qk": "q k",
    "attn-pre-v": "v",
    "pre-v": "v mlp",
    "mlp-inpnorm": "unit",
    "post": "post",
    "peri": "q k v mlp peri",
    "attn-pre-q": "q",
    "attn-pre-k": "k",
    "pre-qk": "q k mlp",
}
"""The paper's placements (Table 1, section 2.1) and ours, as switches."""


def on(placement: Placement) -> set[str]:
    return {f.name for f in fields(placement) if getattr(placement, f.name)}


@pytest.mark.parametrize("text", TABLE)
def test_aliases_follow_the_papers_table(text):
    assert on(Placement.parse(text)) == set(TABLE[text].split())


def test_every_alias_is_in_the_table():
    assert {*ALIASES, "post"} == set(TABLE)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("qk+mlp", "q k mlp"),
        ("mlp+q+k", "q k mlp"),
        ("q+q", "q"),
        ("off+final", "final"),
        ("mlp-pre+final-center", "mlp final_center"),
        ("attn-pre+qk-norm", "q k v qk_norm"),
        ("post+final", "post final"),
        ("unit+v", "unit v"),
    ],
)
def test_parts_join(text, expected):
    assert on(Placement.parse(text)) == set(expected.split())


@pytest.mark.parametrize("text", ["prenorm", "off mlp", "MLP", "qk,mlp"])
def test_an_unknown_part_is_told_with_those_there_are(text):
    with pytest.raises(ValueError, match="expected some of off, attn-pre, pre, mlp-pre"):
        Placement.parse(text)


@pytest.mark.parametrize("text", ["post+mlp", "post+pre", "v+post", "post+peri", "q+post", "k+post"])
def test_post_takes_no_other_place(text):
    with pytest.raises(ValueError, match="expected post by itself"):
        Placement.parse(text)


def test_one_final_norm_at_most():
    with pytest.raises(ValueError, match="expected final or final-center"):
        Placement.parse("pre+final+final-center")


@pytest.mark.parametrize(
    "text, expected",
    [
        ("off", set()),
        ("mlp-pre", {"ln2"}),
        ("attn-pre-q", {"ln1"}),
        ("attn-pre-k", {"ln1"}),
        ("attn-pre-v", {"ln1"}),
        ("pre", {"ln1", "ln2"}),
        ("post", {"ln1", "ln2"}),
        ("peri", {"ln1", "ln2", "ln3", "ln4"}),
        ("mlp-inpnorm+final+qk-norm", set()),
    ],
)
def test_norms_are_those_used(text, expected):
    assert Placement.parse(text).norms == expected


def test_structure_is_what_replicas_must_share():
    mixed = [Placement.parse(f"{text}+final") for text in ("off", "pre", "mlp-pre", "attn-pre-q")]
    assert {p.structure for p in mixed} == {Placement(final=True)}
    for name in {f.name for f in fields(Placement)} - set(SWITCHES):
        assert replace(Placement(), **{name: True}).structure != Placement()


def test_names_of_the_paper():
    names = ("off", "attn-pre", "pre", "mlp-pre", "attn-pre-qk", "attn-pre-v", "pre-v", "pre-qk")
    assert [PAPER_NAMES[n] for n in names] == ["No LN", "A*", "M+A*", "M", "A^qk", "A^v", "M+A^v", "M+A^qk"]
    assert set(PAPER_NAMES) == set(names)
    assert label("attn-pre-qk") == "A^qk (attn-pre-qk)" and label("qk+final") == "qk+final"
