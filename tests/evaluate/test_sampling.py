"""Episodes as indices: fair, disjoint, reproducible, and refused with a reason."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from handful.errors import BadInput
from handful.evaluate import sampling
from handful.evaluate.indices import Episodes
from handful.evaluate.sampling import apportion, choose, draw

LABELS = np.random.default_rng(0).permutation(np.repeat([f"c{i:02d}" for i in range(12)], 30))


def same(a: Episodes, b: Episodes) -> bool:
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in ("classes", "support", "query"))


def check(found: Episodes, labels: np.ndarray) -> None:
    """Rows belong to their way, no row twice in an episode, padding only behind the real ones."""
    names = np.unique(labels)
    for part in (found.support, found.query):
        real = part >= 0
        way = np.broadcast_to(found.classes[..., None], part.shape)
        assert (labels[part[real]] == names[way[real]]).all()
        assert (np.diff(real.astype(int), axis=-1) <= 0).all()
    for classes, support, query in zip(found.classes, found.support, found.query, strict=True):
        rows = np.concatenate([support[support >= 0], query[query >= 0]])
        assert len(np.unique(rows)) == len(rows)
        assert len(np.unique(classes[classes >= 0])) == (classes >= 0).sum()


def test_n_way_k_shot_episodes_have_their_shape() -> None:
    found = draw(LABELS, ways=5, shots=3, queries=7, episodes=50, seed=0)
    assert (found.classes.shape, found.support.shape, found.query.shape) == ((50, 5), (50, 5, 3), (50, 5, 7))
    assert (found.support >= 0).all() and (found.query >= 0).all()
    check(found, LABELS)


def test_every_item_is_equally_likely_in_support_and_query() -> None:
    found = draw(LABELS, ways=5, shots=2, queries=3, episodes=20_000, seed=1)
    for part in (found.classes, found.support, found.query):
        counts = np.bincount(part.ravel())
        assert len(counts) == (12 if part is found.classes else 360)
        assert stats.chisquare(counts).pvalue > 0.01


def test_first_steps_of_a_shuffle_are_as_likely_as_permutations() -> None:
    drawn = choose(np.full(60_000, 4), 3, np.random.default_rng(0))
    counts = np.unique(drawn, axis=0, return_counts=True)[1]
    assert len(counts) == 24
    assert stats.chisquare(counts).pvalue > 0.01


def test_the_same_seed_draws_the_same_whatever_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    for more in ({"shots": 3}, {"shots": "any"}, {"shots": 3, "imbalance": 2.0}):

        def again(seed: int, more: dict = more) -> Episodes:  # type: ignore[type-arg]
            return draw(LABELS, ways=5, queries=7, episodes=40, seed=seed, **more)

        whole = again(3)
        assert not same(whole, again(4))
        with monkeypatch.context() as patch:
            patch.setattr(sampling, "BLOCK", 500)
            assert same(whole, again(3))


def test_a_fixed_seed_is_a_fixed_episode() -> None:
    found = draw(np.repeat(["a", "b", "c"], 4), ways=2, shots=1, queries=1, episodes=2, seed=0)
    again = draw(np.repeat(["a", "b", "c"], 4), ways=2, shots=1, queries=1, episodes=200, seed=0)[:2]
    assert same(found, again)  # more episodes begin with the same ones


def test_fewer_shots_keep_classes_queries_and_the_first_of_the_support() -> None:
    found = draw(LABELS, ways=4, shots=5, queries=6, episodes=9, seed=0)
    less = found.with_shots(2)
    assert (less.shots, less.ways, less.queries) == (2, 4, 6)
    np.testing.assert_array_equal(less.support, found.support[:, :, :2])
    np.testing.assert_array_equal(less.query, found.query)
    for k in (0, 6):
        with pytest.raises(BadInput, match=f"{k} shots asked for, but the episodes hold 5"):
            found.with_shots(k)


def test_any_way_any_shot_keeps_to_its_bounds() -> None:
    labels = np.repeat(np.arange(70), np.random.default_rng(0).integers(6, 200, 70))
    found = draw(labels, ways="any", shots="any", queries=10, episodes=300, seed=0)
    check(found, labels)
    ways = (found.classes >= 0).sum(1)
    assert (ways.min(), ways.max()) == (5, 50)
    assert 24 < ways.mean() < 31
    support, query = (found.support >= 0).sum(2), (found.query >= 0).sum(2)
    real = found.classes >= 0
    assert support[real].min() >= 1 and not support[~real].any() and not query[~real].any()
    assert support.sum(1).max() <= 500
    assert len(np.unique(support[real])) > 10  # unbalanced
    sizes = np.bincount(labels)
    for w, q, classes in zip(ways, query, found.classes, strict=True):
        assert (q[:w] == min(10, sizes[classes[:w]].min() // 2)).all()


def test_any_way_takes_all_classes_where_there_are_few() -> None:
    found = draw(np.repeat([0, 1, 2], 20), ways="any", shots=1, queries=2, episodes=5, seed=0)
    assert (np.sort(found.classes, axis=1) == [0, 1, 2]).all()


def test_imbalanced_queries_add_up_and_follow_the_dirichlet() -> None:
    labels = np.repeat(np.arange(10), 400)
    found = draw(labels, ways=5, shots=1, queries=15, episodes=4000, seed=0, imbalance=2.0)
    counts = (found.query >= 0).sum(2)
    assert (counts.sum(1) == 75).all()
    # A share of Dirichlet(2 ... 2) over 5 classes is Beta(2, 8).
    assert counts.mean() == pytest.approx(15, abs=1e-9)
    assert (counts / 75).std() == pytest.approx(stats.beta(2, 8).std(), rel=0.03)
    check(found[:50], labels)


def test_a_small_class_gives_all_it_has_and_the_others_make_up() -> None:
    labels = np.repeat(np.arange(3), [16, 16, 16])
    found = draw(labels, ways=3, shots=1, queries=15, episodes=50, seed=0, imbalance=0.2)
    assert ((found.query >= 0).sum(2) == 15).all()
    check(found, labels)


def test_apportion_gives_the_largest_remainders() -> None:
    found = apportion(np.array([[0.48, 0.33, 0.19]]), np.array([10]), np.array([[99, 99, 99]]))
    np.testing.assert_array_equal(found, [[5, 3, 2]])
    found = apportion(np.array([[0.9, 0.06, 0.04]]), np.array([10]), np.array([[5, 99, 99]]))
    np.testing.assert_array_equal(found, [[5, 3, 2]])


def test_saved_episodes_come_back_and_only_for_their_data(tmp_path: Path) -> None:
    found = draw(LABELS, ways=5, shots="any", queries=7, episodes=20, seed=0)
    found.save(tmp_path / "e.npz")
    assert same(Episodes.load(tmp_path / "e.npz", LABELS), found)
    with pytest.raises(BadInput, match="other labels"):
        Episodes.load(tmp_path / "e.npz", LABELS[::-1])


def test_files_that_hold_no_episodes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such file"):
        Episodes.load(tmp_path / "none.npz", LABELS)
    (tmp_path / "text.npz").write_text("hello", encoding="utf-8")
    np.savez(tmp_path / "other.npz", x=np.arange(3))
    np.save(tmp_path / "array.npy", np.arange(3))
    np.savez(tmp_path / "pickle.npz", classes=np.array([{}], dtype=object))
    for name in ("text.npz", "other.npz", "array.npy", "pickle.npz"):
        with pytest.raises(BadInput, match="holds no episodes"):
            Episodes.load(tmp_path / name, LABELS)
    found = draw(LABELS, ways=5, shots=1, queries=7, episodes=2, seed=0)
    for damaged in (found.support + 1000, found.support.astype(float), found.support[:1]):
        np.savez(tmp_path / "d.npz", classes=found.classes, support=damaged, query=found.query, source=found.source)
        with pytest.raises(BadInput, match="damaged"):
            Episodes.load(tmp_path / "d.npz", LABELS)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"ways": 13}, "13 ways asked for, but there are 12 classes"),
        ({"shots": 20, "queries": 11}, "20 shots and 11 queries need 31 items a class, but class 'c00' has 30"),
        ({"ways": 1}, "ways must be at least 2, not 1"),
        ({"shots": 0}, "shots must be at least 1, not 0"),
        ({"shots": "some"}, "shots must be at least 1, not some"),
        ({"queries": 0}, "queries must be"),
        ({"episodes": 0}, "episodes must be"),
        ({"imbalance": 0.0}, "must be above 0, not 0.0"),
    ],
)
def test_what_cannot_be_drawn_is_named(asked: dict, message: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(BadInput, match=message):
        draw(LABELS, **{"ways": 5, "shots": 1, "queries": 5, "episodes": 3, "seed": 0, **asked})


def test_the_smallest_class_is_the_one_named() -> None:
    labels = ["big"] * 30 + ["tiny"] * 3 + ["lone"]
    with pytest.raises(BadInput, match="class 'lone' has 1"):
        draw(labels, ways=2, shots="any", queries=5, episodes=3, seed=0)


def test_ten_thousand_episodes_take_less_than_two_seconds() -> None:
    labels = np.repeat(np.arange(100), 600)
    start = time.process_time()
    draw(labels, ways=5, shots=5, queries=15, episodes=10_000, seed=0)
    assert time.process_time() - start < 2
