"""For which mix of classes a number speaks: how it is given, what it does, and what unlabelled items tell of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from handful.errors import BadInput
from handful.evaluate import assess
from handful.evaluate.population import Population, population, shares_of_pool

CLASSES = ["a", "b", "c"]
LABELS = ["a"] * 5 + ["b"] * 3 + ["c"] * 2


def stream(shares: np.ndarray, n: int, seed: int, strength: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """Classes of n items drawn by ``shares``, and their log likelihoods ``[n, C]`` up to a constant."""
    rng = np.random.default_rng(seed)
    true = rng.choice(len(shares), n, p=shares)
    x = rng.normal(size=(n, len(shares)))
    x[np.arange(n), true] += strength
    return true, strength * x


def softmax(logits: np.ndarray) -> np.ndarray:
    p = np.exp(logits - logits.max(1, keepdims=True))
    return p / p.sum(1, keepdims=True)


@pytest.mark.parametrize(
    ("spec", "shares"),
    [
        ("labels", [0.5, 0.3, 0.2]),
        ("uniform", [1 / 3] * 3),
        ({"c": 0.7, "a": 0.2, "b": 0.1}, [0.2, 0.1, 0.7]),
        ({"a": 30, "b": 10, "c": 0}, [0.75, 0.25, 0.0]),
        ({"a": 12.5, "b": 37.5, "c": 50}, [0.125, 0.375, 0.5]),
    ],
)
def test_shares_as_they_are_given(spec, shares) -> None:  # type: ignore[no-untyped-def]
    found = population(spec, CLASSES, LABELS)
    assert list(found.shares) == CLASSES
    assert list(found.shares.values()) == pytest.approx(shares)
    assert found.kind == (spec if isinstance(spec, str) else "file")
    assert Population(**json.loads(json.dumps(found.as_dict()))) == found


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("prior.csv", "label,share\nb,0.3\na,0.5\nc,0.2\n"),
        ("prior.csv", "category;count\na;50\nb;30\nc;20\n"),
        ("prior.json", '{"a": 0.5, "b": 0.3, "c": 0.2}'),
        ("prior.json", '[{"label": "a", "share": 5}, {"label": "b", "share": 3}, {"label": "c", "share": 2}]'),
        ("prior.tsv", "class\thow many\na\t5\nb\t3\nc\t2\n"),
    ],
)
def test_shares_from_files(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    found = population(path, CLASSES, LABELS)
    assert list(found.shares.values()) == pytest.approx([0.5, 0.3, 0.2])
    assert (found.kind, found.source) == ("file", str(path))
    assert name in found.sentence


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("label,share\na,0.5\nb,0.5\n", "says nothing of class 'c'"),
        ("label,share\na,1\n", "'b' and 1 more"),
        ("label,share\na,0.5\nb,0.3\nc,0.2\nd,0\n", "'d' is none of the classes"),
        ("label,share\na,0.5\nb,0.3\nc,0.1\n", "add up to 0.9, not to 1"),
        ("label,share\na,0\nb,0\nc,0\n", "add up to 0"),
        ("label,share\na,0.5\nb,-0.3\nc,0.8\n", "row 3, column 'share' holds '-0.3'"),
        ("label,share\na,half\nb,0.3\nc,0.2\n", "row 2, column 'share' holds 'half'"),
        ("label,share\na,nan\nb,0.3\nc,0.2\n", "holds 'nan'"),
        ("label,share\na,0.5\nb,\nc,0.2\n", "row 3, column 'share' holds nothing"),
        ("label,share\na,0.5\na,0.3\nc,0.2\n", "row 3: label 'a' is there twice"),
        ("label,share\na,0.5\n,0.3\nc,0.2\n", "row 3: column 'label' is empty"),
        ("one,two,three\n1,2,3\n", "needs columns called label and share"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "prior.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(BadInput, match=message) as error:
        population(path, CLASSES, LABELS)
    assert "\n" not in str(error.value)


def test_a_name_that_is_no_file_and_no_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such file"):
        population(str(tmp_path / "uniforms"), CLASSES, LABELS)
    (tmp_path / "prior.txt").write_text("a 0.5", encoding="utf-8")
    with pytest.raises(BadInput, match="is no table"):
        population(tmp_path / "prior.txt", CLASSES, LABELS)


def test_the_shift_of_logits_gives_what_bayes_says() -> None:
    learnt, meant = np.array([0.5, 0.3, 0.2]), np.array([0.1, 0.1, 0.8])
    _, likelihood = stream(meant, 200, 0)
    found = population(dict(zip(CLASSES, meant, strict=True)), CLASSES, LABELS)
    shifted = softmax(likelihood + np.log(learnt) + found.log_ratio(CLASSES, LABELS))
    np.testing.assert_allclose(shifted, softmax(likelihood + np.log(meant)), atol=1e-12)
    assert not population("labels", CLASSES, LABELS).log_ratio(CLASSES, LABELS).any()


def test_a_class_that_never_occurs_is_never_answered() -> None:
    found = population({"a": 1, "b": 1, "c": 0}, CLASSES, LABELS)
    shifted = softmax(np.array([[0.0, 0.0, 50.0]]) + found.log_ratio(CLASSES, LABELS))
    assert shifted[0, 2] == 0
    assert shifted.sum() == pytest.approx(1)


def test_a_class_without_labels_stays_as_it_is_or_is_finite() -> None:
    assert population("labels", CLASSES, ["a", "b"]).log_ratio(CLASSES, ["a", "b"]) == pytest.approx([0, 0, 0])
    assert np.isfinite(population("uniform", CLASSES, ["a", "b"]).log_ratio(CLASSES, ["a", "b"])).all()


def test_weights_turn_judged_items_into_the_population() -> None:
    found = population({"a": 0.1, "b": 0.1, "c": 0.8}, CLASSES, LABELS)
    weights = found.item_weights(LABELS)
    assert weights.mean() == pytest.approx(1)
    assert weights[0] * 5 / len(LABELS) == pytest.approx(0.1)
    assert weights[-1] * 2 / len(LABELS) == pytest.approx(0.8)
    assert found.item_weights(["a", "b"]) == pytest.approx([1, 1])  # c is not judged: the rest of the mix stays
    with pytest.raises(BadInput, match="'d'"):
        found.item_weights(["a", "d"])
    with pytest.raises(BadInput, match="no judged item"):
        population({"a": 1, "b": 1, "c": 0}, CLASSES, LABELS).item_weights(["c"])


def test_the_pool_tells_its_mix() -> None:
    learnt, meant = np.array([0.25, 0.25, 0.25, 0.25]), np.array([0.6, 0.25, 0.1, 0.05])
    true, likelihood = stream(meant, 3000, 0)
    found = shares_of_pool(softmax(likelihood), learnt)
    seen = np.bincount(true, minlength=4) / 3000
    assert found.sum() == pytest.approx(1)
    np.testing.assert_allclose(found, seen, atol=0.015)
    answers = np.bincount(softmax(likelihood).argmax(1), minlength=4) / 3000
    assert np.abs(found - seen).sum() < np.abs(answers - seen).sum() / 2  # far better than counting answers


def test_the_pool_is_the_better_the_larger_and_never_rules_a_class_out() -> None:
    learnt, meant = np.full(5, 0.2), np.array([0.5, 0.3, 0.2, 0.0, 0.0])
    errors = []
    for n in (20, 200, 2000):
        each = [np.abs(shares_of_pool(softmax(stream(meant, n, s)[1]), learnt) - meant).sum() for s in range(10)]
        errors.append(np.mean(each))
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.05
    assert shares_of_pool(softmax(stream(meant, 20, 0)[1]), learnt).min() > 0


def test_the_pool_of_a_model_that_learnt_from_another_mix() -> None:
    learnt, meant = np.array([0.7, 0.2, 0.1]), np.array([0.1, 0.2, 0.7])
    _, likelihood = stream(meant, 4000, 1)
    np.testing.assert_allclose(shares_of_pool(softmax(likelihood + np.log(learnt)), learnt), meant, atol=0.03)


def test_no_pool_no_mix() -> None:
    with pytest.raises(BadInput, match="unlabelled"):
        population("pool", CLASSES, LABELS)
    with pytest.raises(BadInput, match="shape"):
        population("pool", CLASSES, LABELS, np.ones((4, 2)))
    found = population("pool", CLASSES, LABELS, np.full((1500, 3), 1 / 3))
    assert "1,500 unlabelled items" in found.sentence


def test_weighted_numbers_from_balanced_items_hold_for_the_imbalanced_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("handful.evaluate.metrics.REPLICATES", 200)
    meant = np.array([0.6, 0.3, 0.1])
    mix = population(dict(zip(CLASSES, meant, strict=True)), CLASSES, CLASSES * 16)
    shift, names = mix.log_ratio(CLASSES, CLASSES), np.array(CLASSES)
    true, likelihood = stream(meant, 50_000, 0, 1.5)
    truth = assess(names[true], softmax(likelihood + shift), CLASSES)
    held = []
    for seed in range(1, 151):
        rng = np.random.default_rng(seed)
        codes = np.repeat(np.arange(3), 20)
        x = rng.normal(size=(60, 3))
        x[np.arange(60), codes] += 1.5
        found = assess(names[codes], softmax(1.5 * x + shift), CLASSES, weights=mix.item_weights(names[codes]))
        metrics = ("accuracy", "balanced_accuracy", "macro_f1", "log_loss")
        pairs = [(getattr(found, name), getattr(truth, name).value) for name in metrics]
        pairs += [(found.per_class[0].precision, truth.per_class[0].precision.value)]
        held.append([estimate.low <= value <= estimate.high for estimate, value in pairs])
    assert (np.mean(held, axis=0) >= 0.9).all(), np.mean(held, axis=0)
    assert np.mean(held, axis=0)[0] >= 0.93
