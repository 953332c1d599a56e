"""How often captions speak of a class, what of that is relevant, and accuracy on the rarest classes."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from handful.errors import BadInput
from handful.evaluate.neglected import concept_frequency, list_synonyms, neglected_classes, relevance_judge

CORPUS = [
    "A bass, caught in the lake",
    "Bassoon and oboe",  # a word that begins with the name is none of it
    "BASS guitar; bass drum",  # one caption, whatever it says twice
    "Sea-bass with lemon",
    "sea perch",
    "Café au lait",
    "the café's window",
    "a seabass",
    "night_snake in the night",
]


@pytest.mark.paper(40, oracle="c", part="study")
def test_whole_phrases_are_counted_once_a_caption() -> None:
    names = ["bass", "cafe", "night snake", "sea"]
    found = concept_frequency(names, iter(CORPUS), {"bass": ["sea perch", "Sea Bass", "sea-bass"]})
    assert [one.counts for one in found] == [
        {"bass": 3, "sea perch": 1, "Sea Bass": 1, "sea-bass": 1},
        {"cafe": 1},
        {"night snake": 1},
        {"sea": 2},
    ]
    assert [one.captions for one in found] == [4, 1, 1, 2]
    assert [(one.judged, one.relevance, one.frequency) for one in found] == [(0, 1.0, n) for n in (4, 1, 1, 2)]


@pytest.mark.paper(40, oracle="d", part="study")
@pytest.mark.parametrize("n", [3, 5, 11, 47, 100])
def test_the_tail_is_the_authors(n: int) -> None:
    draw = np.random.default_rng(n)
    frequency = dict(zip([f"class {i}" for i in range(n)], draw.permutation(3 * n)[:n].tolist(), strict=True))
    accuracy = dict(zip(frequency, draw.random(n).tolist(), strict=True))
    tail, head = [], []
    for i, name in enumerate(dict(sorted(frequency.items(), key=lambda item: item[1]))):
        (tail if i <= int(0.2 * n) else head).append(accuracy[name])
    found = neglected_classes(frequency, accuracy).tail
    assert [accuracy[name] for name in found.rare] == tail
    assert found.accuracy is not None and found.others is not None
    assert found.accuracy.value == pytest.approx(np.mean(tail)) and found.others.value == pytest.approx(np.mean(head))


@pytest.mark.paper(40, oracle="e", part="study")
def test_frequency_is_the_count_times_what_is_relevant_of_it() -> None:
    corpus = [f"a crane {'over the harbour' if i % 4 else 'in the reeds'} {i}" for i in range(200)]

    def reeds(name: str, pairs: Sequence[tuple[str, str]]) -> list[bool]:
        assert all(synonym == "crane" for synonym, _ in pairs)
        return ["reeds" in caption for _, caption in pairs]

    (found,) = concept_frequency(["crane"], corpus, judge=reeds)
    assert (found.captions, found.judged, found.relevance, found.frequency) == (200, 200, 0.25, 50)
    (long,) = concept_frequency(["crane"], [*corpus, "crane " + "reeds " * 100], judge=reeds)
    assert (long.judged, long.relevance) == (201, 50 / 201)  # the list of a hundred words is shown to nobody


@pytest.mark.parametrize(
    ("share", "judged"),
    [(1.0, 1024), (0.125, 1600), (0.0, 10112)],  # batches of 64: 1000 and 200 of them relevant; or 10000 and a batch
)
def test_judging_ends(share: float, judged: int) -> None:
    def some(name: str, pairs: Sequence[tuple[str, str]]) -> list[bool]:
        return [i < share * len(pairs) for i in range(len(pairs))]

    (found,) = concept_frequency(["crane"], ["crane"] * 11000, judge=some)
    assert (found.judged, found.relevance, found.captions) == (judged, share, 11000)


def test_the_order_is_drawn_with_the_seed() -> None:
    def seen(seed: int) -> list[str]:
        captions: list[str] = []

        def note(name: str, pairs: Sequence[tuple[str, str]]) -> list[bool]:
            captions.extend(caption for _, caption in pairs)
            return [True] * len(pairs)

        concept_frequency(["crane"], [f"crane {i}" for i in range(30)], judge=note, seed=seed)
        return captions

    assert seen(0) == seen(0) != seen(1) and sorted(seen(0)) == sorted(seen(1))


def test_a_synonym_of_two_classes_is_refused_or_counts_for_none_or_both() -> None:
    given: Any = {"names": ["bird", "machine"], "corpus": ["a crane", "a bird", "a digger"]}
    given["synonyms"] = {"bird": ["crane"], "machine": ["Crane", "digger"]}
    with pytest.raises(BadInput, match="'crane' is a name of 'bird' and 'machine'"):
        concept_frequency(**given)
    none = concept_frequency(**given, shared="none")
    assert [one.captions for one in none] == [1, 1] and none[0].counts == {"bird": 1, "crane": 0}
    both = concept_frequency(**given, shared="both")
    assert [one.captions for one in both] == [2, 2] and both[1].counts == {"machine": 0, "Crane": 1, "digger": 1}
    assert both[1].best == "Crane" and both[1].as_dict()["frequency"] == 2


def test_a_language_model_lists_and_judges() -> None:
    asked: list[str] = []

    def ask(prompts: Sequence[str]) -> list[str]:
        asked.extend(prompts)
        return [
            "1. Whooping crane\n2. crane bird" if "ways" in p else " Yes." if "reeds" in p else "No" for p in prompts
        ]

    synonyms = list_synonyms(["crane"], ask, "birds")
    assert synonyms == {"crane": ["whooping crane", "crane bird"]} and "crane, one of some birds" in asked[0]
    judge = relevance_judge(ask, {"crane": "a tall bird"})
    (found,) = concept_frequency(["crane"], ["a crane bird in reeds", "crane"], synonyms, judge)
    assert found.relevance == 0.5
    assert 'Does the "crane" in "crane" refer to the concept: "crane" - "a tall bird"?' in " ".join(asked)


def test_accuracy_follows_frequency() -> None:
    frequency = {name: float(n) for n, name in enumerate("abcdefghij")}
    found = neglected_classes(frequency, {name: n / 10 for n, name in enumerate("abcdefghij")})
    assert found.tail.rare == ("a", "b", "c") and found.rank_correlation == pytest.approx(1)
    assert found.p is not None and found.p < 1e-6
    flat = neglected_classes(frequency, dict.fromkeys(frequency, 0.5))
    assert flat.rank_correlation is None and flat.tail.difference == 0
    assert neglected_classes(concept_frequency(["bass", "oboe", "lake"], CORPUS)).tail.rare == ("lake",)


@pytest.mark.parametrize("name", ["imagenet", "flowers102", "stanfordcars"])
def test_models_are_worse_at_what_their_captions_neglect(shared_data: Path, name: str) -> None:
    """Counts and accuracies of bethgelab/frequency_determines_performance (MIT): LAION-400M, ViT-B/32."""
    with zipfile.ZipFile(shared_data / "concept_frequency.zip") as file:
        counts = json.loads(file.read(f"search_counts/{name}_laion400m_lemmatized_search_counts.json"))
        results = json.loads(file.read(f"zero_shot_evaluations/{name}_ensemble_results.json"))
    found = neglected_classes(counts, results["backboneViT-B-32_pretrainedlaion400m"]["classwise"])
    assert found.tail.difference is not None and found.tail.difference < -5  # in points of accuracy
    assert found.rank_correlation is not None and found.p is not None
    assert found.rank_correlation > 0.1 and found.p < 0.01


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"names": []}, "different classes"),
        ({"names": ["a", "a"]}, "different classes"),
        ({"names": ["a", "?"]}, "no word in it"),
        ({"synonyms": {"c": ["d"]}}, "none of the classes"),
        ({"synonyms": {"a": ["_"]}}, "no word in it"),
        ({"synonyms": {"a": "snare"}}, "synonyms of 'a' are a list, not the one text 'snare'"),
        ({"corpus": []}, "no captions"),
        ({"corpus": "a b"}, "the corpus is many captions"),
        ({"shared": "some"}, "shared is one of"),
        ({"judge": lambda name, pairs: []}, "0 verdicts on 1 captions of 'a'"),
    ],
)
def test_what_cannot_be_counted(given: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        concept_frequency(**({"names": ["a", "b"], "corpus": ["a b"]} | given))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"frequency": {"a": 1}}, "leaves none for the head"),
        ({"share": 1.0}, "leaves none for the head"),
        ({"frequency": {"a": -1, "b": 2}}, "counts are 0 or more"),
        ({"accuracies": {"a": 1.0}}, "no accuracy of concept"),
    ],
)
def test_tails_that_make_no_sense(given: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        neglected_classes(**({"frequency": {"a": 1, "b": 2, "c": 3}} | given))
