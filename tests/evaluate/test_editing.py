"""Paper 128, FiVE: what an edit leaves as it was, and whether it succeeds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from handful.errors import BadInput
from handful.evaluate.editing import (
    background,
    by_kind,
    clip_score,
    five_acc,
    inside_box,
    judged,
    motion_fidelity,
    structure_distance,
)

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "five.json").read_text(encoding="utf-8"))
RNG = np.random.default_rng(0)
CLIP = RNG.random((9, 16, 14, 3))
TRACKS = RNG.normal(size=(12, 6, 2)).cumsum(axis=1)


@pytest.mark.paper(128, oracle="a")
@pytest.mark.parametrize("seed", range(5))
def test_the_mean_of_four_is_the_mean_of_two(seed: int) -> None:
    yn, mc = np.random.default_rng(seed).random((2, 30)) < 0.6
    found = five_acc(yn, mc)
    assert found.accuracy == pytest.approx((yn.mean() + mc.mean()) / 2)
    assert found.union.value >= max(yn.mean(), mc.mean()) >= found.intersection.value


@pytest.mark.paper(128, oracle="b")
def test_clips_that_are_the_same() -> None:
    values = {name: background(name, CLIP, CLIP, stride=1).value for name in ("psnr", "mse", "ssim")}  # type: ignore[arg-type]
    assert values == {"psnr": float("inf"), "mse": 0, "ssim": pytest.approx(1)}
    keys = RNG.normal(size=(2, 10, 5))
    assert structure_distance(keys, 3 * keys) == pytest.approx(0, abs=1e-15)
    assert motion_fidelity(TRACKS, TRACKS) == pytest.approx(1)
    u = np.diff(TRACKS, axis=1)
    u /= np.linalg.norm(u, axis=-1, keepdims=True)
    others = [max(0.0, *((u[i] * u[j]).sum(-1).mean() for j in range(12) if j != i)) for i in range(12)]
    assert motion_fidelity(TRACKS, TRACKS, "five") == pytest.approx(np.mean(others))


@pytest.mark.paper(128, oracle="c")
def test_masked_measures_are_those_of_torchmetrics() -> None:
    frame = GOLDEN["frame"]
    a, b = (np.array(frame[name], np.uint8)[None] for name in ("edited", "original"))
    mask = np.array(frame["mask"])[None]
    for name in ("psnr", "mse", "ssim"):
        assert background(name, a, b, mask).value == pytest.approx(frame[name], rel=1e-5)  # type: ignore[arg-type]
    changed = a.copy()
    changed[:, mask[0] == 1] = 7  # what is inside the mask does not matter
    assert background("ssim", changed, b, mask) == background("ssim", a, b, mask)


@pytest.mark.paper(128, oracle="f")
def test_tracks_that_are_moved_and_reversed() -> None:
    assert motion_fidelity(TRACKS + np.array([5.0, -3.0]), TRACKS) == pytest.approx(1)
    one = TRACKS[:1]
    assert motion_fidelity(one, -one) == pytest.approx(-1)
    assert motion_fidelity(one, 4 * one) == pytest.approx(1)


@pytest.mark.paper(128, oracle="g")
def test_the_summary_of_the_published_results() -> None:
    results = {
        kind: {name: [np.nan if v is None else v for v in values] for name, values in table.items()}
        for kind, table in GOLDEN["results"].items()
    }
    # The release rounds twice to four decimals, and the columns kept here have five digits.
    assert by_kind(results, scaled=True) == pytest.approx(GOLDEN["final"], rel=1e-4, abs=1e-4)


def test_tracks_that_rest() -> None:
    still = np.zeros((2, 4, 2))
    assert motion_fidelity(still, still) == 1
    assert motion_fidelity(still, TRACKS[:, :4]) == 0
    boxed = inside_box(np.array([[[2.0, 1]], [[9, 9]]]), np.pad(np.ones((1, 2, 3)), ((0, 0), (0, 5), (0, 5))))
    assert boxed.tolist() == [[[2, 1]]]
    with pytest.raises(BadInput, match="mask is empty"):
        inside_box(TRACKS, np.zeros((1, 3, 3)))
    with pytest.raises(BadInput, match="masks"):
        inside_box(TRACKS, np.ones((4, 4)))


def test_masks_without_an_outside_or_an_inside_are_left_out() -> None:
    mask = np.zeros((9, 16, 14))
    mask[0, :4], mask[3] = 1, 1
    found = background("mse", CLIP, CLIP[::-1], mask, stride=1)
    assert (found.frames, found.left_out) == (1, 8) and found.value > 0
    none = background("mse", CLIP, CLIP, np.zeros((9, 16, 14)))
    assert np.isnan(none.value) and none.as_dict() == {"value": None, "frames": 0, "left_out": 2}


@pytest.mark.parametrize(
    ("source", "target", "choice", "done"),
    [
        ("No.", "Yes, it is", "B", (1, 1)),
        ("Yes", "yes", "(b) a dog", (0, 1)),
        (None, "yes", "A", (1, 0)),
        ("no", None, "b) ", (1, 1)),
        ("nothing", "yes", "because", (np.nan, np.nan)),
    ],
)
def test_answers_of_a_judge(source: str | None, target: str | None, choice: str, done: tuple[float, float]) -> None:
    np.testing.assert_array_equal(judged(source, target, choice), done)


def test_unread_answers_count_nowhere() -> None:
    found = five_acc([1, np.nan, 0], [1, 1, 0])
    assert (found.n, found.unread, found.accuracy) == (2, 1, 0.5)
    json.dumps(found.as_dict(), allow_nan=False)


def test_similarity_to_a_prompt() -> None:
    assert clip_score(np.array([[3.0, 0], [0, 1], [-1, 0]]), np.array([2.0, 0])) == pytest.approx(100 / 3)


def test_bad_input() -> None:
    with pytest.raises(BadInput, match="cannot be compared"):
        background("mse", CLIP, CLIP[:-1])
    with pytest.raises(BadInput, match="not 'lpips'"):
        background("lpips", CLIP, CLIP)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="too small for SSIM"):
        background("ssim", CLIP[:, :8], CLIP[:, :8])
    with pytest.raises(BadInput, match="mask of zeros and ones"):
        background("mse", CLIP, CLIP, np.full((9, 16, 14), 0.5))
    with pytest.raises(BadInput, match=r"not \(9, 16, 14\) with \[0, 255\]"):
        background("mse", CLIP, CLIP, np.where(CLIP[..., 0] > 0.5, 255, 0))
    for stride in (0, 1.5):
        with pytest.raises(BadInput, match=f"stride must be a whole number from 1, not {stride}"):
            background("mse", CLIP, CLIP, stride=stride)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="between 0 and 1"):
        background("mse", 2 * CLIP, CLIP)
    with pytest.raises(BadInput, match="length 0"):
        clip_score(np.ones((2, 3)), np.zeros(3))
    with pytest.raises(BadInput, match=r"tracks \[tracks, frames, 2\]"):
        inside_box(np.zeros((2, 3, 5)), np.ones((1, 3, 3)))
    with pytest.raises(BadInput, match="read by `judged`"):
        five_acc(["yes"], ["b"])  # type: ignore[list-item]
    with pytest.raises(BadInput, match="are texts, not 1"):
        judged("no", 1, "b")  # type: ignore[arg-type]
    for empty in ([], 1.0):
        with pytest.raises(BadInput, match="needs a list of values of each measure"):
            by_kind({"a": {"x": empty}})  # type: ignore[dict-item]
    with pytest.raises(BadInput, match="length 0"):
        structure_distance(np.zeros((3, 2)), np.ones((3, 2)))
    with pytest.raises(BadInput, match="not finite"):
        structure_distance(np.full((2, 3), np.nan), np.ones((2, 3)))
    with pytest.raises(BadInput, match="not finite"):
        motion_fidelity(np.full((2, 3, 2), np.nan), np.ones((2, 3, 2)))
    with pytest.raises(BadInput, match="as many tracks"):
        motion_fidelity(TRACKS, TRACKS[1:], "five")
    with pytest.raises(BadInput, match="do not fit"):
        motion_fidelity(TRACKS, TRACKS[:, 1:])
    with pytest.raises(BadInput, match="not of the same edits"):
        five_acc([1], [1, 0])
    with pytest.raises(BadInput, match="no edit has a readable answer"):
        five_acc([np.nan], [1])
    with pytest.raises(BadInput, match="is needed"):
        judged(None, None, "b")
    with pytest.raises(BadInput, match="kind 'b' has other measures"):
        by_kind({"a": {"x": [1]}, "b": {"y": [1]}})
    with pytest.raises(BadInput, match="ragged"):
        by_kind({"a": {"x": [1], "y": [1, 2]}})
