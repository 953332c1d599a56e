"""A card comes out of a file, and a file may hold anything: it gives a page, or one line that says what is wrong."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_cards import DATE, Page, assessment, full_card, make_examples, text_example

from handful.errors import BadInput
from handful.ship.report import render
from handful.ship.report_card import check_card

CARD = full_card(test={"source": "t.csv", "note": None, "assessment": assessment(["double_charge", "invoice"], 20)})
EVIDENCE = make_examples(CARD, text_example)
Step = str | int


def places(value: Any, path: tuple[Step, ...] = ()) -> Iterator[tuple[Step, ...]]:
    """The path of every value in a card, the card itself first."""
    yield path
    for key, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(item, (*path, key))


def put(card: Any, path: tuple[Step, ...], value: Any) -> Any:
    """The card with another value at a path."""
    if not path:
        return value
    made = copy.deepcopy(card)
    inside = made
    for step in path[:-1]:
        inside = inside[step]
    inside[path[-1]] = value
    return made


def shows(card: Any) -> bool:
    """Whether a card gives a page; fails unless it gives that or one clean line."""
    try:
        text = render(card, EVIDENCE, date=DATE)
    except BadInput as error:
        assert "\n" not in str(error)
        assert str(error).startswith("the card cannot be shown: ")
        return False
    Page(text)
    return True


PLACES = list(places(CARD))
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([10**400, -1, 2**53, 0]),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from([[], {}, [[]], [None], {"value": None}, {"x": 1}, ["a", "b"], [1, 2, 3], [{}]]),
    st.recursive(st.none(), lambda inner: st.lists(inner, min_size=1, max_size=1), max_leaves=30),
)


def test_a_whole_card_shows() -> None:
    assert shows(CARD)
    assert shows(json.loads(json.dumps(CARD)))
    assert shows({})


@settings(max_examples=400)
@given(st.sampled_from(PLACES), ODD)
def test_a_card_with_one_odd_value_gives_a_page_or_one_line(path: tuple[Step, ...], value: Any) -> None:
    shows(put(CARD, path, value))


@settings(max_examples=100)
@given(st.lists(st.tuples(st.sampled_from(sorted(CARD)), ODD), max_size=4))
def test_a_card_with_odd_parts_gives_a_page_or_one_line(changes: list[tuple[str, Any]]) -> None:
    shows({**CARD, **dict(changes)})


@settings(max_examples=60)
@given(st.recursive(st.none() | st.integers() | st.text(max_size=3), lambda x: st.lists(x) | st.dictionaries(
    st.sampled_from(sorted(CARD)), x)))  # fmt: skip
def test_anything_at_all_gives_a_page_or_one_line(value: Any) -> None:
    shows(value)


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        ((), [], "it must be an object, not list"),
        (("estimate", "accuracy"), 0.8, "estimate.accuracy must be an object, not float"),
        (("estimate", "accuracy", "value"), "0.8", "estimate.accuracy.value must be a number, not str"),
        (("estimate", "assessment", "per_class", 1, "n"), -1, "per_class[1].n counts something, so it cannot be -1"),
        (("estimate", "assessment", "per_class", 1, "n"), True, "per_class[1].n must be a number, not true or false"),
        (
            ("estimate", "assessment", "classes"),
            ["a"],
            "estimate.assessment.confusion is not 1 x 1, as its classes are",
        ),
        (("task", "classes", 2, "name"), None, "task.classes[2].name must be a text, not null"),
        (("task", "sha256", "data/tickets.csv"), 3, "task.sha256['data/tickets.csv'] must be a text, not int"),
        (("shots_curve", 0, "accuracy"), None, "shots_curve[0].accuracy must be an object, not null"),
        (("seconds", "read"), float("nan"), "seconds['read'] is out of bounds"),
        (("suspicious", 0, "given"), ["x"], "suspicious[0].given must be a text, not list"),
        (("blind_spots", 0), {"kind": "cut"}, "blind_spots[0] lacks 'message'"),
    ],
)
def test_the_line_says_where_and_what(path: tuple[Step, ...], value: Any, complaint: str) -> None:
    with pytest.raises(BadInput) as caught:
        check_card(put(CARD, path, value))
    assert complaint in str(caught.value)


def test_a_number_that_is_not_known_is_a_dash_and_no_error() -> None:
    for unknown in (None, float("nan"), float("inf")):
        assert shows(put(CARD, ("selective", "coverage", "value"), unknown))
        assert shows(put(CARD, ("estimate", "accuracy", "low"), unknown))


def test_keys_that_no_report_shows_are_let_be() -> None:
    assert shows({**CARD, "later": {"version": 9}})
