"""Text from data cannot steer a terminal, and JSON stays JSON."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handful.cli.text import to_json, visible


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("\x1b[31mred", "\\x1b[31mred"),
        ("a\u202eb", "a\\u202eb"),
        ("bell\x07", "bell\\x07"),
        ("c1 \x9b2J", "c1 \\x9b2J"),
        ("two\nlines\t here", "two lines here"),
        ("[bold]x[/bold]", "[bold]x[/bold]"),
        ("lone \udcff", "lone \\udcff"),
    ],
)
def test_control_characters_show(hostile: str, shown: str) -> None:
    assert visible(hostile) == shown


def test_long_text_is_cut() -> None:
    assert visible("x" * 100, 10) == "x" * 9 + "…"


def test_joined_emoji_stays() -> None:
    assert visible("👩‍🚀") == "👩‍🚀"


@given(st.text())
def test_visible_is_printable(text: str) -> None:
    assert visible(text).replace("\u200c", "").replace("\u200d", "").isprintable()


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_json_is_harmless_and_comes_back(value: object) -> None:
    text = to_json(value, indent=1)
    assert text.replace("\n", "").isprintable()
    assert json.loads(text) == value


def test_json_has_no_nan() -> None:
    assert json.loads(to_json({"a": [float("nan"), float("inf"), 1.5]})) == {"a": [None, None, 1.5]}
