"""What to call a class by counts of its synonyms, against the authors' rule and as files hold them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from handful.commands.sources import class_sentences
from handful.errors import BadInput
from handful.evaluate.neglected import concept_frequency
from handful.read import read_class_names
from handful.read.synonyms import most_frequent_name

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "real_names.json").read_text(encoding="utf-8"))


@pytest.mark.paper(40, oracle="e", part="prompt")
def test_equals_the_authors_rule() -> None:
    """RELAXED, which leaves a name alone for a part of it, and STRICT."""
    for case, (relaxed, strict) in zip(GOLDEN["inputs"], GOLDEN["expected"], strict=True):
        assert most_frequent_name(case["name"], case["counts"]) == relaxed
        assert most_frequent_name(case["name"], case["counts"], parts=True) == strict


@pytest.mark.paper(40, oracle="c", part="prompt")
def test_names_counted_in_a_corpus_take_the_place_of_names(tmp_path: Path) -> None:
    corpus = ["A spider web in dew", "spider-web!", "cobwebbed", "spider webs", "dots", "a dotted line", "dotted"]
    found = concept_frequency(["cobwebbed", "dots"], corpus, {"cobwebbed": ["spider web"], "dots": ["dotted"]})
    assert {one.name: one.counts for one in found} == {
        "cobwebbed": {"cobwebbed": 1, "spider web": 2},
        "dots": {"dots": 1, "dotted": 2},
    }
    (tmp_path / "counts.json").write_text(json.dumps({one.name: one.counts for one in found}), encoding="utf-8")
    sentences = class_sentences(tmp_path / "counts.json", ["cobwebbed", "dots"], ("a photo of {}.", "{} texture"))
    assert sentences == {
        "cobwebbed": ["a photo of spider web.", "spider web texture"],
        "dots": ["a photo of dotted.", "dotted texture"],
    }


@pytest.mark.parametrize(
    ("name", "counts", "best"),
    [
        ("American_robin", {"robin bird": 2, "american robin": 2}, "american robin"),
        ("frilled-necked lizard", {"frilled necked lizard": 3, "frilled-necked lizard": 1}, "frilled necked lizard"),
        ("Honda Accord 2012", {"2012 Honda Accord": 9, "Honda Accord 2012": 1}, "2012 Honda Accord"),
        ("Honda Accord 2012", {"Honda Accord": 9}, "Honda Accord 2012"),
        ("yellow lady's slipper", {"yellow ladys slipper": 1, "orchid": 0}, "yellow ladys slipper"),
        ("c07", {"cat": 0, "feline": 0}, "cat"),
    ],
)
def test_what_a_class_is_called(name: str, counts: dict[str, int], best: str) -> None:
    assert most_frequent_name(name, counts) == best


def test_published_entries_say_what_was_chosen(tmp_path: Path) -> None:
    chosen: dict[str, Any] = {"name": "rock beauty fish", "alternates": {"rock beauty": 9, "rock beauty fish": 1}}
    counted: dict[str, Any] = {"name": "blotchy", "alternates": {"blotchy": 253, "blotched": 552}, "actual_freq": 804}
    entries = {"392": {**chosen, "most_common_name": "rock beauty fish"}, "1": counted, "2": ["woods", "a forest"]}
    (tmp_path / "metrics.json").write_text(json.dumps(entries), encoding="utf-8")
    assert read_class_names(tmp_path / "metrics.json") == {
        "rock beauty fish": ["rock beauty fish"],
        "blotchy": ["blotched"],
        "2": ["woods", "a forest"],
    }


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"a": {}}, "c.json: class 'a' has no synonyms"),
        ({"a": {"alternates": {}, "name": "ant"}}, "c.json: class 'ant' has no synonyms"),
        ({"a": {"ant": -1}}, "the count of 'ant' must be a whole number from 0, not -1"),
        ({"a": {"ant": 1.5}}, "whole number from 0, not 1.5"),
        ({"a": {"ant": "7"}}, "whole number from 0, not '7'"),
        ({"a": {"ant": True}}, "whole number from 0, not True"),
        ({"a": {"!": 1}}, "synonym '!' has no word in it"),
        ({"bird": {"crane": 4}, "machine": {"Crane": 4}}, "'Crane' is the name of label 'bird' and of 'machine'"),
    ],
    ids=str,
)
def test_counts_that_name_nothing(value: Any, said: str, tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text(json.dumps(value), encoding="utf-8")
    with pytest.raises(BadInput, match=said):
        read_class_names(tmp_path / "c.json")
