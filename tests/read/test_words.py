from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handful.read import is_code, readable


@pytest.mark.parametrize(
    "label", ["c07", "12", "A-3", "class_4", "n01440764", "topic_3", "A", "a3f9c2", "4.5", "+", "c_1"]
)
def test_codes(label):
    assert is_code(label)


@pytest.mark.parametrize(
    "label",
    [
        "card_arrival",
        "yes",
        "no",
        "USA",
        "ABBR",
        "covid19",
        "猫",
        "3rd_party",
        "00_airplane",
        "level2Support",
        "pos",
        "intent",
    ],
)
def test_words(label):
    assert not is_code(label)


@pytest.mark.parametrize(
    ("label", "words"),
    [
        ("card_arrival", "card arrival"),
        ("cancelOrder", "cancel order"),
        ("cancel-order", "cancel order"),
        ("AnnualCrop", "Annual crop"),
        ("HTTPError", "HTTP error"),
        ("reset_myPIN", "reset my PIN"),
        ("iPhone", "iPhone"),
        ("IDs", "IDs"),
        ("e-mail", "e-mail"),
        ("Refund - not showing", "Refund - not showing"),
        ("reverted_card_payment?", "reverted card payment?"),
        ("__x__", "x"),
        ("_", "_"),
    ],
)
def test_readable(label, words):
    assert readable(label) == words


@given(st.text(max_size=30))
def test_any_label_is_readable(label):
    assert readable(readable(label)).split() is not None
    assert isinstance(is_code(label), bool)
    assert bool(readable(label).strip()) == bool(label.strip())
