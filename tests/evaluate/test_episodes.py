"""Episodes judged: by hand, batch against loop, padding, class text, heads that need more than they get."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
import torch

from handful.adapt.base import Features, Head
from handful.adapt.gda import GDA
from handful.adapt.prototypes import Prototypes
from handful.adapt.zero_shot import ZeroShot
from handful.core.task import Query, State, Task
from handful.errors import BadInput, HandfulError
from handful.evaluate import episodes
from handful.evaluate.episodic import make_pool, run
from handful.evaluate.indices import Episodes, digest
from handful.evaluate.memory import PeakMemory
from handful.evaluate.sampling import draw
from handful.protocols import Needs

C, N, D = 10, 40, 16


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    y = rng.permutation(np.repeat([f"c{i}" for i in range(C)], N))
    means = dict(zip(sorted(set(y)), rng.normal(size=(C, D)), strict=True))
    return (np.stack([means[c] for c in y]) + rng.normal(size=(C * N, D))).astype(np.float32), y


def test_an_episode_computed_by_hand() -> None:
    x = np.array([[0.0], [1.0], [10.0], [12.0], [5.4], [20.0], [6.5]], dtype=np.float32)
    y = np.array(["a", "a", "b", "b", "a", "b", "a"])
    # Means 0.5 and 11, border 5.75: 5.4 (a) right, 6.5 (a) wrong, 20 (b) right. One shot: 0 and 10, border 5.
    drawn = Episodes(np.array([[0, 1]]), np.array([[[0, 1], [2, 3]]]), np.array([[[4, 6], [5, -1]]]), digest(y))
    found = run(Prototypes(), x, y, drawn)
    assert found.accuracy.tolist() == [2 / 3]
    assert (found.mean.value, found.mean.low, found.mean.high) == (2 / 3, 0, 1)
    assert run(Prototypes(), x, y, drawn.with_shots(1)).accuracy.tolist() == [1 / 3]


@pytest.mark.parametrize("head", [Prototypes(), GDA()])
@pytest.mark.parametrize("ways", [5, "any"])
def test_a_batch_of_episodes_equals_a_loop_over_single_ones(head: Head, ways, data) -> None:  # type: ignore[no-untyped-def]
    x, y = data
    drawn = draw(y, ways=ways, shots="any" if ways == "any" else 3, queries=6, episodes=8, seed=0)
    pool = make_pool(head, x, y)
    whole = pool.batch(drawn)
    together = head.logits(whole.task)
    for e in range(len(drawn)):
        classes, support, query = drawn.classes[e], drawn.support[e], drawn.query[e]
        w = (classes >= 0).sum()
        rows, asked = support[support >= 0], query[query >= 0]
        names = np.unique(y)[classes[:w]]
        order = np.argsort(names)
        fitted = type(head)(**head.get_params()).fit(x[rows], y[rows])
        alone = np.asarray(fitted.logits(x[asked]))
        batched = together[e, : len(asked)].numpy()
        np.testing.assert_allclose(batched[:, :w][:, order], alone, atol=1e-5 * np.abs(alone).max())
        assert whole.real[e].sum() == len(asked)
        assert (np.asarray(names)[whole.answers[e, : len(asked)]] == y[asked]).all()


@pytest.mark.parametrize("head", [Prototypes(), GDA(), ZeroShot()])
def test_padding_and_what_stands_in_it_change_nothing(head: Head, data) -> None:  # type: ignore[no-untyped-def]
    x, y = data
    drawn = draw(y, ways="any", shots="any", queries=6, episodes=6, seed=1)
    text = {c: x[y == c].mean(0) for c in np.unique(y)}
    clean = make_pool(head, x, y, text=text).batch(drawn)
    task, query = clean.task, clean.task.query
    assert query is not None and query.prior is not None and task.prior is not None
    empty = task.weight == 0
    assert empty.any() and (~clean.real).any() and (~task.class_mask).any()
    garbage = replace(
        task,
        support=torch.where(empty[..., None], 1e3, task.support),
        labels=torch.where(empty[..., None], 7.0, task.labels),
        prior=torch.where(empty[..., None] | ~task.class_mask[:, None], -1e3, task.prior),
        query=replace(
            query,
            x=torch.where(clean.real[..., None], query.x, 1e3),
            prior=torch.where(task.class_mask[:, None], query.prior, 1e3),
        ),
    )
    a, b = head.logits(task), head.logits(garbage)
    keep = clean.real[..., None] & task.class_mask[:, None]
    np.testing.assert_allclose(a[keep], b[keep], rtol=1e-5, atol=1e-4)
    assert (a.argmax(-1)[clean.real] == b.argmax(-1)[clean.real]).all()


def test_chunks_change_nothing(data) -> None:  # type: ignore[no-untyped-def]
    x, y = data
    found = [
        episodes(Prototypes(), x, y, ways=5, shots=2, queries=9, episodes=20, seed=0, chunk=chunk).accuracy
        for chunk in (None, 1, 7)
    ]
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


def test_more_shots_are_better_and_the_result_says_what_it_is(data) -> None:  # type: ignore[no-untyped-def]
    x, y = data
    calls: list[tuple[int, int]] = []
    one, five = (
        episodes(
            Prototypes(), x, y, ways=5, shots=k, queries=9, episodes=200, seed=0,
            progress=lambda done, total: calls.append((done, total)),
        )
        for k in (1, 5)
    )  # fmt: skip
    assert five.mean.low > one.mean.high
    assert one.accuracy.shape == (200,)
    assert calls[-1] == (200, 200)
    found = one.as_dict()
    assert list(found) == ["episodes", "accuracy", "seconds", "peak_memory", "memory_kind", "batched"]
    assert found["seconds"] > 0 and found["batched"] is True


def test_class_text_and_an_aligned_view_make_the_prior(data) -> None:  # type: ignore[no-untyped-def]
    x, y = data
    rng = np.random.default_rng(5)
    text = {c: rng.normal(size=(2, 6)) for c in np.unique(y)}
    aligned = np.stack([text[c].mean(0) for c in y]) + 0.05 * rng.normal(size=(len(y), 6))
    items = Features(x, {"aligned": aligned.astype(np.float32)})
    ask = {"ways": 5, "shots": 1, "queries": 9, "episodes": 30, "seed": 0}
    assert episodes(ZeroShot(), items, y, text=text, **ask).mean.value > 0.99
    by_head = episodes(ZeroShot(text=text), items, y, **ask)
    np.testing.assert_array_equal(by_head.accuracy, episodes(ZeroShot(), items, y, text=text, **ask).accuracy)
    fitted = ZeroShot(text=text).fit(items, y)
    drawn = draw(y, ways=C, shots=1, queries=1, episodes=1, seed=0)
    batch = make_pool(ZeroShot(), items, y, text=text).batch(drawn)
    wanted = np.asarray(fitted.logits(items.take(drawn.query.ravel())))[:, drawn.classes[0]]
    np.testing.assert_allclose(batch.task.query.prior[0], wanted, rtol=1e-4, atol=1e-4)
    with pytest.raises(BadInput, match="width 6, but items have 16"):
        episodes(ZeroShot(), x, y, text=text, **ask)
    with pytest.raises(BadInput, match="none of the labels; it names other"):
        episodes(ZeroShot(), items, y, text={"other": text["c0"]}, **ask)


@dataclass(eq=False, repr=False, kw_only=True)
class OneByOne(Prototypes):
    """A head that takes a single task without a batch dimension."""

    key: ClassVar[str] = "one-by-one"
    needs: ClassVar[Needs] = Needs(batched="loop")

    def adapt(self, task: Task) -> State:
        assert task.support.dim() == 2 and task.labels.dim() == 2 and task.weight.dim() == 1
        assert task.query is not None and task.query.x.dim() == 2
        return super().adapt(task)


def test_a_head_that_cannot_batch_is_looped_over_and_marked(data) -> None:  # type: ignore[no-untyped-def]
    x, y = data
    ask = {"ways": 5, "shots": 2, "queries": 9, "episodes": 12, "seed": 0}
    looped, batched = episodes(OneByOne(), x, y, **ask), episodes(Prototypes(), x, y, **ask)
    np.testing.assert_array_equal(looped.accuracy, batched.accuracy)
    assert (looped.batched, batched.batched) == (False, True)


@dataclass(eq=False, repr=False, kw_only=True)
class Needy(Prototypes):
    """Centres by the mean of base classes."""

    key: ClassVar[str] = "needy"
    needs: ClassVar[Needs] = Needs(background=True)

    def adapt(self, task: Task) -> State:
        assert task.background is not None
        return super().adapt(task) | {"origin": task.background.mean}

    def answer(self, state: State, query: Query) -> torch.Tensor:
        assert state["origin"].shape == (D,)
        return super().answer(state, query)


def test_base_features_reach_the_head(data) -> None:  # type: ignore[no-untyped-def]
    x, y = data
    ask = {"ways": 5, "shots": 2, "queries": 9, "episodes": 3, "seed": 0}
    assert episodes(Needy(), x, y, base=x[:7], **ask).mean.value > 0.2
    with pytest.raises(BadInput, match="'needy' needs features of base classes"):
        episodes(Needy(), x, y, **ask)
    with pytest.raises(BadInput, match=r"background must be features \[m, 16\]"):
        episodes(Needy(), x, y, base=x[:, :3], **ask)


def with_needs(needs: Needs) -> Head:
    return type("Other", (Prototypes,), {"needs": needs, "key": "other"})()


@pytest.mark.parametrize(
    ("needs", "message"),
    [
        (Needs(text=True), "needs text of every class"),
        (Needs(unlabelled=True), "needs unlabelled items"),
        (Needs(views=("local",)), "needs the view 'local'"),
        (Needs(min_shots=3), "needs 3 shots a class, but an episode has a class with 2"),
    ],
)
def test_a_head_that_needs_more_says_so(needs: Needs, message: str, data) -> None:  # type: ignore[no-untyped-def]
    x, y = data
    with pytest.raises(BadInput, match=message):
        episodes(with_needs(needs), x, y, ways=5, shots=2, queries=9, episodes=3, seed=0)


def test_bad_features_are_named(data) -> None:  # type: ignore[no-untyped-def]
    x, y = data
    ask = {"ways": 5, "shots": 2, "queries": 9, "episodes": 3, "seed": 0}
    hole = x.copy()
    hole[17, 3] = np.nan
    with pytest.raises(BadInput, match="row 17 of the features is not finite"):
        episodes(Prototypes(), hole, y, **ask)
    with pytest.raises(BadInput, match="399 rows of features but 400 labels"):
        episodes(Prototypes(), x[:-1], y, **ask)
    with pytest.raises(BadInput, match=r"features are numbers \[n, d\]"):
        episodes(Prototypes(), x[:, 0], y, **ask)


def test_logits_that_are_not_finite_are_no_accuracy(data) -> None:  # type: ignore[no-untyped-def]
    x, y = data

    class Broken(Prototypes):
        def answer(self, state: State, query: Query) -> torch.Tensor:
            return super().answer(state, query) * torch.nan

    with pytest.raises(HandfulError, match="not finite"):
        episodes(Broken(), x, y, ways=5, shots=2, queries=9, episodes=3, seed=0)


def test_peak_memory_sees_what_is_gone_again() -> None:
    with PeakMemory() as memory:
        torch.ones(40 * 2**18).sum()  # 40 MiB
    if memory.peak is None:
        assert memory.what is None
    else:
        assert 39 * 2**20 <= memory.peak <= 60 * 2**20
        assert memory.what == "peak resident memory above the start"
