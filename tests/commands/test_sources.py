"""Drawing shots and reading class names."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from handful.commands.sources import class_sentences, draw_shots, labelled
from handful.errors import BadInput
from handful.read import from_arrays


@given(
    counts=st.lists(st.integers(3, 9), min_size=2, max_size=5),
    shots=st.integers(1, 2),
    seed=st.integers(0, 1000),
)
def test_shots_are_drawn_a_class_and_the_rest_is_everything_else(counts: list[int], shots: int, seed: int) -> None:
    labels = [f"k{c}" for c, n in enumerate(counts) for _ in range(n)]
    x = np.arange(len(labels), dtype=float)[:, None]
    drawn, rest = draw_shots(from_arrays(x, labels), shots, seed)
    assert set(Counter(drawn.labels).values()) == {shots}
    assert sorted([*np.asarray(drawn.items).ravel(), *np.asarray(rest.items).ravel()]) == x.ravel().tolist()


@pytest.mark.parametrize(("shots", "says"), [(0, "at least 1"), (3, "'b' has 2 examples"), (2, "nothing to test")])
def test_shots_that_cannot_be_drawn(shots: int, says: str) -> None:
    labels = ["a", "a", "b", "b"] if shots != 3 else ["a"] * 4 + ["b"] * 2
    with pytest.raises(BadInput, match=says):
        draw_shots(from_arrays(np.eye(len(labels)), labels), shots, 0)


def test_one_class_or_none() -> None:
    with pytest.raises(BadInput, match="one class only"):
        labelled(from_arrays(np.eye(2), ["a", "a"]))
    with pytest.raises(BadInput, match="label"):
        labelled(from_arrays(np.eye(2)))


def test_labels_are_read_as_words_unless_they_are_codes() -> None:
    assert class_sentences(None, ["card_arrival", "lost card"]) == {
        "card_arrival": ["card arrival"],
        "lost card": ["lost card"],
    }
    assert class_sentences(None, ["c01", "c02", "c03"]) == {}


def test_given_names_may_be_one_or_many_and_of_some_classes() -> None:
    names = {"c1": "money", "c2": ["login", "password"], "other": "x"}
    assert class_sentences(names, ["c1", "c2", "c3"]) == {"c1": ["money"], "c2": ["login", "password"]}
    with pytest.raises(BadInput, match="none of which is a label"):
        class_sentences({"foo": "bar"}, ["c1", "c2"])


def test_names_that_differ_from_labels_in_case_and_blanks_are_theirs(tmp_path: Path) -> None:
    names = {"annual_crop_land": ["green fields"], "river": "water", "other": "x"}
    sentences = class_sentences(names, ["Annual Crop  Land", "river"])
    assert sentences == {"Annual Crop  Land": ["green fields"], "river": ["water"]}
    assert class_sentences({"a": "one", "A": "two"}, ["A", "a"]) == {"a": ["one"], "A": ["two"]}
    with pytest.raises(BadInput, match="'annual crop' and 'annual_crop' both mean label 'Annual Crop'"):
        class_sentences({"annual crop": "x", "annual_crop": "y"}, ["Annual Crop"])
    with pytest.raises(BadInput, match="'crop' may mean label 'CROP' or 'Crop'"):
        class_sentences({"crop": "x"}, ["CROP", "Crop"])


def test_sentences_of_a_file_as_torch_saves_it_go_into_no_template(tmp_path: Path) -> None:
    torch.save({"siamese": ["Siamese is medium sized cat"]}, tmp_path / "pets.pt")
    templates = ("a photo of {}.",)
    assert class_sentences(tmp_path / "pets.pt", ["Siamese"], templates) == {"Siamese": ["Siamese is medium sized cat"]}
    names = {"siamese": "Siamese cat"}
    assert class_sentences(names, ["Siamese"], templates) == {"Siamese": ["a photo of Siamese cat."]}
