"""Concepts: how often they were seen, and what follows."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer

from handful.errors import BadInput
from handful.evaluate.concept_index import ConceptIndex
from handful.evaluate.concepts import corpus_agreement, log_linear_trend, long_tail, tail_images

SETS = [
    "imagenet", "cifar10", "cifar100", "caltech101", "caltech256", "sun397",
    "birdsnap", "country211", "cub", "dtd", "eurosat", "fgvcaircraft",
    "flowers102", "food101", "imagenet-sketch", "oxfordpets", "stanfordcars", "ucf101",
]  # fmt: skip
PUBLISHED = [
    ("integrated_tlemmatized_i0.7", "cc3m", "RN50", 0.961),
    ("integrated_tlemmatized_i0.7", "cc3m", "ViT-B-16", 0.970),
    ("integrated_tlemmatized_i0.7", "cc12m", "RN50", 0.943),
    ("integrated_tlemmatized_i0.7", "cc12m", "ViT-B-16", 0.923),
    ("integrated_tlemmatized_i0.7", "yfcc15m", "RN50", 0.941),
    ("integrated_tlemmatized_i0.7", "yfcc15m", "RN101", 0.959),
    ("integrated_tlemmatized_i0.7", "yfcc15m", "ViT-B-16", 0.975),
    ("integrated_tlemmatized_i0.7", "laion400m", "ViT-B-32", 0.986),
    ("integrated_tlemmatized_i0.7", "laion400m", "ViT-B-16", 0.976),
    ("integrated_tlemmatized_i0.7", "laion400m", "ViT-L-14", 0.944),
    ("rampp0.7", "cc3m", "RN50", 0.977),
    ("lemmatized", "cc3m", "RN50", 0.934),
]
CAPTIONS = ["A dog and two cats", "dogs bark", "the red fox", "a fox, a dog", "red cars", "nothing here"]


@pytest.mark.paper(11, oracle="a", part="study")
@pytest.mark.parametrize(("search", "corpus", "model", "r"), PUBLISHED)
def test_correlations_of_the_paper(shared_data: Path, search: str, corpus: str, model: str, r: float) -> None:
    """Counts and accuracies of bethgelab/frequency_determines_performance (MIT)."""
    counts, accuracy = [], []
    with zipfile.ZipFile(shared_data / "concept_frequency.zip") as file:
        for name in SETS:
            counted = f"search_counts/{name}_{corpus}_{search}_search_counts.json"
            if counted not in file.namelist():  # captions were not searched for ImageNet-Sketch
                continue
            found = json.loads(file.read(counted))
            results = json.loads(file.read(f"zero_shot_evaluations/{name}_ensemble_results.json"))
            by_class = next(v for k, v in results.items() if corpus in k and model in k)["classwise"]
            if name == "cifar10":
                by_class["airplane"] = by_class["plane"]
            counts += list(found.values())
            accuracy += [by_class[key] for key in found]
    trend = log_linear_trend(counts, accuracy, drop=(2, 1) if corpus == "laion400m" else (1, 1))
    assert round(trend.r, 3) == r and trend.p < 0.01 and trend.slope > 0


@pytest.mark.paper(11, oracle="b", part="study")
def test_a_trend_is_found_and_its_absence_too() -> None:
    draw = np.random.default_rng(0)
    counts = np.exp(draw.uniform(0, 10, 3000)).round()
    accuracy = 5 + 6 * np.log(np.maximum(counts, 1)) + draw.normal(0, 10, 3000)
    trend = log_linear_trend(counts, accuracy)
    assert trend.r > 0.9
    # a bin stands at its upper edge: its mean lies half a bin lower, the slope is the same
    error = 10 / np.sqrt(min(trend.sizes)) / (np.std(np.log(trend.counts)) * np.sqrt(len(trend.counts)))
    assert abs(trend.slope - 6) < 3 * error
    half = np.diff(np.log(trend.counts)).mean() / 2
    assert trend.expected(100) == pytest.approx(5 + 6 * (np.log(100) - half), abs=2)
    assert json.loads(json.dumps(trend.as_dict()))["r"] == trend.r
    chance = [log_linear_trend(draw.permutation(counts), accuracy).rank_correlation for _ in range(20)]
    assert np.abs(chance).max() < 0.1


def test_bins_hold_their_upper_edge() -> None:
    counts = np.exp(np.arange(12))
    trend = log_linear_trend(counts, np.arange(12) ** 2)
    assert trend.means == pytest.approx(np.arange(1, 11) ** 2) and trend.sizes == (1,) * 10
    empty = log_linear_trend(np.delete(counts, 5), np.delete(np.arange(12) ** 2, 5))
    assert len(empty.means) == 9
    assert log_linear_trend([0, 1, 2, 5, 20, 100, 1000], range(7)).r == pytest.approx(
        log_linear_trend([1, 1, 2, 5, 20, 100, 1000], range(7)).r
    )


@pytest.mark.paper(11, oracle="c", part="index")
def test_set_algebra() -> None:
    names = ["dog", "red_fox", "car"]
    index = ConceptIndex.from_captions(CAPTIONS)
    assert index.counts([*names, "fox (bird of prey)", "Cat", "zebra"]) == {
        "dog": 3, "red_fox": 1, "car": 1, "fox (bird of prey)": 2, "Cat": 1, "zebra": 0,
    }  # fmt: skip
    both = index.combine(names, np.random.default_rng(0).random((6, 3)), threshold=0.5)
    assert all(both.both[name] <= min(both.text[name], both.image[name]) for name in names)
    more = ConceptIndex.from_captions([*CAPTIONS, "a red dog"])
    assert all(more.counts([name])[name] >= n for name, n in index.counts(names).items())


def test_small_words_of_a_name_hide_no_caption() -> None:
    """The sheet's kite: words in brackets are in no caption, "of" is in some."""
    index = ConceptIndex.from_captions(["a kite", "a kite in the sky", "birds of the sea", "the end of the"])
    assert index.counts(["kite (bird of prey)", "kite", "the end", "of the"]) == {
        "kite (bird of prey)": 2, "kite": 2, "the end": 1, "of the": 2,
    }  # fmt: skip


def test_words_with_a_hyphen_are_words() -> None:
    index = ConceptIndex.from_captions(["a T-shirt", "old t-shirts", "a shirt", "a jack-o'-lantern", "a tea"])
    assert index.counts(["t-shirt", "T-Shirts", "shirt", "jack-o'-lantern", "lantern"]) == {
        "t-shirt": 2, "T-Shirts": 2, "shirt": 3, "jack-o'-lantern": 1, "lantern": 1,
    }  # fmt: skip


@pytest.mark.paper(11, oracle="d", part="index")
def test_single_words_are_counted_as_scikit_learn_does() -> None:
    vectorizer = CountVectorizer(binary=True)
    table = vectorizer.fit_transform(CAPTIONS).sum(axis=0).tolist()[0]
    names = vectorizer.get_feature_names_out().tolist()
    assert ConceptIndex.from_captions(CAPTIONS, lemma=str).counts(names) == dict(zip(names, table, strict=True))


def test_misalignment_by_hand() -> None:
    index = ConceptIndex.from_captions(["cat", "dog", "cat", "none"])
    both = index.combine(["cat", "dog"], [[0.9, 0], [0.9, 0], [0.1, 0.2], [0, 0.9]])
    assert (both.text, both.image, both.both) == ({"cat": 2, "dog": 1}, {"cat": 2, "dog": 1}, {"cat": 1, "dog": 0})
    assert both.misaligned == 1 and both.misalignment == pytest.approx(1 / 3) and both.of_corpus == 0.25


def test_the_tail() -> None:
    counts = {"a": 5, "b": 0, "c": 100, "d": 2}
    tail = long_tail(counts, 2, {"a": 0.8, "b": 0.1, "c": 0.9, "d": 0.3})
    assert tail.rare == ("b", "d") and tail.counts == (0, 2)
    assert tail.accuracy is not None and tail.accuracy.value == pytest.approx(0.2)
    assert tail.difference == pytest.approx(0.2 - 0.85)
    assert json.loads(json.dumps(long_tail(counts, 1).as_dict()))["accuracy"] is None
    assert corpus_agreement(counts, {"a": 3, "b": 1, "c": 7, "d": 2, "e": 9}) == pytest.approx(1)


def test_images_of_the_tail_are_balanced_and_no_copies() -> None:
    bits = np.random.default_rng(0).random((9, 64)) < 0.5
    bits[1] = bits[0]
    bits[1, :10] ^= True  # ten bits apart: a copy
    bits[3] = bits[2]
    bits[3, :11] ^= True
    rows = tail_images(["a"] * 6 + ["b"] * 3, bits)
    assert 1 not in rows.tolist() and len(rows) == 6
    assert np.array_equal(np.sort(rows[rows >= 6]), [6, 7, 8])


def test_refusals() -> None:
    with pytest.raises(BadInput, match="3 counts and 2 accuracies"):
        log_linear_trend([1, 2, 3], [1, 2])
    with pytest.raises(BadInput, match="count of concept 1 is -2"):
        log_linear_trend([1, -2, 3], [1, 2, 3])
    with pytest.raises(BadInput, match="only 1 bins have concepts"):
        log_linear_trend([1, 10, 100], [1, 2, 3])
    with pytest.raises(BadInput, match="equally frequent"):
        log_linear_trend([5, 5, 5], [1, 2, 3])
    with pytest.raises(BadInput, match="accuracy is 1 in every bin"):
        log_linear_trend(np.exp(np.arange(12)), np.ones(12))
    with pytest.raises(BadInput, match="accuracy of concept 0 is missing"):
        log_linear_trend([1, 2], [np.nan, 2])
    with pytest.raises(BadInput, match="counts must be numbers"):
        log_linear_trend(["many"], [1])
    with pytest.raises(BadInput, match="accuracies are a list of numbers, one a concept, not of shape"):
        log_linear_trend([1, 2], [[1], [2]])
    for drop in ((1,), 1, (1, -1)):
        with pytest.raises(BadInput, match="drop"):
            log_linear_trend(np.exp(np.arange(12)), np.arange(12), drop=drop)
    for captions in ([], ["", "..."]):
        with pytest.raises(BadInput, match="no captions"):
            ConceptIndex.from_captions(captions)
    with pytest.raises(BadInput, match="not one text"):
        ConceptIndex.from_captions("a dog")
    with pytest.raises(BadInput, match="caption 1 is None, not a text"):
        ConceptIndex.from_captions(["a dog", None])
    with pytest.raises(BadInput, match="class_names is a list of names, not 'dog'"):
        ConceptIndex.from_captions(CAPTIONS).counts("dog")
    with pytest.raises(BadInput, match="class name 3 is no text"):
        ConceptIndex.from_captions(CAPTIONS).counts([3])
    with pytest.raises(BadInput, match="class names repeat"):
        ConceptIndex.from_captions(CAPTIONS).combine(["dog", "dog"], np.ones((6, 2)))
    with pytest.raises(BadInput, match="no word in it"):
        ConceptIndex.from_captions(CAPTIONS).counts(["_ _"])
    with pytest.raises(BadInput, match="image scores"):
        ConceptIndex.from_captions(CAPTIONS).combine(["dog"], np.ones((2, 1)))
    with pytest.raises(BadInput, match="image scores of caption 2 are not finite"):
        ConceptIndex.from_captions(CAPTIONS).combine(["dog"], [[1], [0], [np.nan], [0], [1], [0]])
    with pytest.raises(BadInput, match="k=290 rarest of 1"):
        long_tail({"a": 1})
    for known in ({}, {"a": np.nan}):
        with pytest.raises(BadInput, match="no accuracy of concept 'a'"):
            long_tail({"a": 1}, 1, known)
    with pytest.raises(BadInput, match="count of concept 2 is nan"):
        corpus_agreement({"a": 1, "b": 2, "c": np.nan}, {"a": 1, "b": 2, "c": 3})
