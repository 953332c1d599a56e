"""Zero-shot learning judged: by class, seen and unseen apart, on splits that hold."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from scipy.io import savemat
from sklearn.metrics import balanced_accuracy_score

from handful.errors import BadInput
from handful.evaluate.generalised import (
    gzsl_scores,
    per_class_accuracy,
    read_features,
    read_splits,
    seen_unseen_curve,
    zsl_protocol,
)


@pytest.mark.paper(202, oracle="d", part="benchmark")
def test_accuracy_is_that_of_classes() -> None:
    draw = np.random.default_rng(0)
    y = draw.choice(list("abcd"), 200, p=[0.7, 0.2, 0.05, 0.05])
    answers = np.where(draw.random(200) < 0.6, y, draw.choice(list("abcde"), 200))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the answer e is no class of y, and counts as wrong
        assert per_class_accuracy(y, answers) == pytest.approx(balanced_accuracy_score(y, answers))
    assert per_class_accuracy(y, answers) != pytest.approx(np.mean(y == answers))


@pytest.mark.paper(202, oracle="e", part="benchmark")
def test_harmonic_mean() -> None:
    y, answers = list("aaaabbuuuuvv"), list("aaauabuuuauv")
    got = gzsl_scores(y, answers, "ab")
    assert got == pytest.approx(((3 / 4 + 1 / 2) / 2, (3 / 4 + 1 / 2) / 2, 0.625))
    assert gzsl_scores(y, list("aaaabbaaaaaa"), "ab") == (0, 1, 0)
    assert gzsl_scores(y, ["z"] * 12, "ab") == (0, 0, 0)
    other = gzsl_scores(y, list("aaauabuuuuuu"), "ab")
    swapped = gzsl_scores(y, list("aaauabuuuuuu"), "uv")
    assert other[:2] == swapped[1::-1] and pytest.approx(swapped.H) == other.H and other.U != other.S


class TestCurve:
    """Calibrated stacking."""

    classes = ("a", "b", "u", "v")

    def scores(self, n: int = 60) -> tuple[np.ndarray, np.ndarray]:
        draw = np.random.default_rng(0)
        y = draw.choice(self.classes, n)
        scores = draw.normal(size=(n, 4)) + 1.5 * (y[:, None] == np.array(self.classes)) + [2, 2, 0, 0]
        return y, scores

    def test_every_point_is_the_answer_less_its_penalty(self) -> None:
        y, scores = self.scores()
        curve = seen_unseen_curve(y, scores, self.classes, "ab")
        for penalty, u, s in zip(curve.penalty, curve.U, curve.S, strict=True):
            answers = np.array(self.classes)[(scores - penalty * np.array([1, 1, 0, 0])).argmax(1)]
            assert (u, s) == pytest.approx(gzsl_scores(y, answers, "ab")[:2])
        assert curve.U[0] == pytest.approx(0) and curve.S[-1] == pytest.approx(0)
        assert (np.diff(curve.U) >= -1e-12).all() and (np.diff(curve.S) <= 1e-12).all()

    def test_a_penalty_helps_and_the_area_does_not_depend_on_one(self) -> None:
        y, scores = self.scores()
        curve = seen_unseen_curve(y, scores, self.classes, "ab")
        penalty, best = curve.best
        assert 1 < penalty < 3
        assert best.H > gzsl_scores(y, np.array(self.classes)[scores.argmax(1)], "ab").H + 0.1
        moved = seen_unseen_curve(y, scores - [7, 7, 0, 0], self.classes, "ab")
        assert moved.area == pytest.approx(curve.area) and 0 < curve.area < 1

    def test_perfect_and_hopeless(self) -> None:
        y, _ = self.scores()
        right = (y[:, None] == np.array(self.classes)).astype(float)
        assert seen_unseen_curve(y, right, self.classes, "ab").area == pytest.approx(1)
        assert seen_unseen_curve(y, 1 - right, self.classes, "ab").area == pytest.approx(0)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"scores": np.zeros((60, 3))}, "scores of shape"),
            ({"scores": np.full((60, 4), np.nan)}, "finite"),
            ({"seen": "abuv"}, "needs seen and unseen"),
            ({"seen": "x"}, "needs seen and unseen"),
        ],
    )
    def test_refusals(self, change: dict[str, Any], message: str) -> None:
        y, scores = self.scores()
        given: dict[str, Any] = {"scores": scores, "classes": self.classes, "seen": "ab", **change}
        with pytest.raises(BadInput, match=message):
            seen_unseen_curve(y, **given)


def test_answers_that_cannot_be_judged_are_refused() -> None:
    for y, answers in (([], []), (["a"], ["a", "b"])):
        with pytest.raises(BadInput, match="one length"):
            per_class_accuracy(y, answers)
    with pytest.raises(BadInput, match="of a seen class"):
        gzsl_scores(["a", "b"], ["a", "b"], ["c"])
    with pytest.raises(BadInput, match="of another class"):
        gzsl_scores(["a", "b"], ["a", "b"], ["a", "b"])


class TestProtocol:
    """Splits as the paper proposes them."""

    labels = np.array(list("aabbccddee"))
    good: ClassVar = {"train": [0, 1, 2], "val": [4, 5], "test_seen": [3], "test_unseen": [6, 7, 8, 9]}

    def test_what_holds_passes(self) -> None:
        zsl_protocol(self.labels, self.good)
        # The authors' own: train and val are of trainval and test_seen together.
        theirs = {**self.good, "train": [0, 1, 2, 3], "trainval": [0, 1, 2, 4, 5]}
        zsl_protocol(self.labels, theirs)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"val": [3]}, "class 'b' is in train and in val"),
            ({"test_unseen": [5, 6]}, "class 'c' is in val and in test_unseen"),
            ({"trainval": [0, 2, 8]}, "class 'e' is in trainval and in test_unseen"),
            ({"test_seen": [3, 8]}, "class 'e' is in test_seen and in test_unseen"),
            ({"test_seen": [3, 8], "test_unseen": [6]}, "class 'e' of test_seen has no items"),
            ({"test_seen": [2]}, "item 2 is in train and in test_seen"),
            ({"trainval": [0, 3, 4]}, "item 3 is in trainval and in test_seen"),
            ({"test": [3]}, "no part 'test'"),
            ({"train": [0, 10]}, "train must be indices of items from 0 to 9"),
            ({"val": []}, "val must be indices"),
        ],
    )
    def test_overlaps_are_refused(self, change: dict[str, Any], message: str) -> None:
        with pytest.raises(BadInput, match=message):
            zsl_protocol(self.labels, {**self.good, **change})
        with pytest.raises(BadInput, match="needs test_unseen"):
            zsl_protocol(self.labels, {"train": [0]})

    def test_a_test_class_of_imagenet_is_warned_of(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            zsl_protocol(self.labels, self.good, names={"d": "axolotl of the moon", "a": "goldfish"})
        with pytest.warns(UserWarning, match="'Great_White-Shark' are classes of ImageNet"):
            zsl_protocol(self.labels, self.good, names={"d": "Great_White-Shark"})


def test_splits_of_the_authors(tmp_path: Path) -> None:
    path = tmp_path / "att_splits.mat"
    parts = {"train_loc": [1, 2], "val_loc": [3], "trainval_loc": [1, 3], "test_seen_loc": [2], "test_unseen_loc": [4]}
    att = np.arange(6.0).reshape(2, 3)
    savemat(path, {**{name: np.array(rows)[:, None] for name, rows in parts.items()}, "att": att})
    splits, signatures = read_splits(path)
    assert {name: rows.tolist() for name, rows in splits.items()} == {
        "train": [0, 1],
        "val": [2],
        "trainval": [0, 2],
        "test_seen": [1],
        "test_unseen": [3],
    }
    assert {c: s.tolist() for c, s in signatures.items()} == {1: [0, 3], 2: [1, 4], 3: [2, 5]}
    path.write_text("no matrices", encoding="utf-8")
    with pytest.raises(BadInput, match="holds no zero-shot splits"):
        read_splits(path)
    savemat(path, {"att": att})
    with pytest.raises(BadInput, match="holds no zero-shot splits: it has no 'train_loc'"):
        read_splits(path)
    savemat(path, {"att": att}, do_compression=True)
    whole = bytearray(path.read_bytes())
    whole[150] ^= 255
    path.write_bytes(whole)  # its compressed part is damaged
    with pytest.raises(BadInput, match="holds no zero-shot splits"):
        read_splits(path)
    whole[124:126] = b"\x00\x02"
    path.write_bytes(whole)  # says that it is of version 7.3
    with pytest.raises(BadInput, match="holds no zero-shot splits"):
        read_splits(path)


def test_features_of_the_authors(tmp_path: Path) -> None:
    path = tmp_path / "res101.mat"
    savemat(path, {"features": np.arange(6.0).reshape(2, 3), "labels": np.array([[2], [1], [2]])})
    x, y = read_features(path)
    assert x.tolist() == [[0, 3], [1, 4], [2, 5]] and y.tolist() == [2, 1, 2]
    savemat(path, {"features": np.arange(6.0).reshape(2, 3), "labels": np.array([[2], [1]])})
    with pytest.raises(BadInput, match="2 labels"):
        read_features(path)
    savemat(path, {"features": np.array(["words"]), "labels": np.array([[2]])})
    with pytest.raises(BadInput, match="not made of numbers"):
        read_features(path)
