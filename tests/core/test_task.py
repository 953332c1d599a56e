"""The task, its derived fields, and distances."""

from __future__ import annotations

import torch
from sklearn.metrics.pairwise import euclidean_distances

from handful.core.distances import cosine, sqeuclidean, unit
from handful.core.task import ClassText, make_task, mask_classes, places
from handful.core.text_rows import with_text_rows


def test_padding_is_zero_in_what_heads_read() -> None:
    nan = torch.nan
    task = make_task(
        torch.tensor([[1.0, 2.0], [nan, nan]]),
        torch.tensor([[1.0, 0.0, nan], [nan, nan, nan]]),
        weight=torch.tensor([2.0, 0.0]),
        class_mask=torch.tensor([True, True, False]),
        prior=torch.tensor([[3.0, 4.0, nan], [nan, nan, nan]]),
    )
    assert task.y.tolist() == [[2, 0, 0], [0, 0, 0]]
    assert task.x.tolist() == [[1, 2], [0, 0]]
    assert task.offset is not None and task.offset.tolist() == [[3, 4, 0], [0, 0, 0]]
    assert int(task.ways) == 2


def test_items_of_the_smallest_class() -> None:
    labels = torch.tensor([0, 0, 0, 1, 1])
    assert int(make_task(torch.zeros(5, 2), labels).fewest_items) == 2
    views = make_task(torch.zeros(5, 2), labels, item=torch.tensor([0, 0, 1, 2, 2]))
    assert not views.one_row_an_item
    assert int(views.fewest_items) == 1
    masked = make_task(torch.zeros(3, 2), torch.tensor([0, 0, 1]), ways=4, class_mask=torch.tensor([1, 1, 0, 0]).bool())
    assert int(masked.fewest_items) == 1
    assert int(make_task(torch.zeros(3, 2), torch.tensor([0, 0, 0]), ways=2).fewest_items) == 0


def test_class_text_is_the_mean_direction_of_what_is_there() -> None:
    vectors = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.6, 0.8], [torch.nan, torch.nan]], [[9.0, 9.0], [9.0, 9.0]]])
    text = ClassText(vectors, torch.tensor([[True, True], [True, False], [False, False]]))
    torch.testing.assert_close(text.mean, torch.tensor([[0.5**0.5, 0.5**0.5], [0.6, 0.8], [0.0, 0.0]]))


def test_text_becomes_rows_of_its_own_items() -> None:
    text = ClassText(torch.eye(3)[:, None, :2], torch.tensor([[True], [True], [False]]))
    task = with_text_rows(make_task(torch.ones(4, 2), torch.tensor([0, 1, 2, 2]), text=text), 0.5)
    assert task.weight.tolist() == [1, 1, 1, 1, 0.5, 0.5, 0]
    assert task.one_row_an_item
    assert task.y[4:].tolist() == [[0.5, 0, 0], [0, 0.5, 0], [0, 0, 0]]


def test_mapped_features_leave_the_rest() -> None:
    task = make_task(torch.ones(2, 3), torch.tensor([0, 1]), unlabelled=torch.ones(4, 3))
    double = task.map(lambda x: 2 * x)
    assert double.support.tolist() == [[2, 2, 2]] * 2
    assert double.unlabelled is not None and double.unlabelled.sum() == 24
    assert double.labels is task.labels


def test_distances() -> None:
    draw = torch.Generator().manual_seed(0)
    a, b = (torch.randn(2, n, 5, generator=draw, dtype=torch.float64) for n in (4, 6))
    for i in range(2):
        want = torch.as_tensor(euclidean_distances(a[i], b[i], squared=True))
        torch.testing.assert_close(sqeuclidean(a, b)[i], want)
    far = sqeuclidean(a.float() + 1e3, b.float() + 1e3)
    torch.testing.assert_close(far.double(), sqeuclidean(a, b), atol=2e-2, rtol=1e-2)
    torch.testing.assert_close(cosine(a, b), torch.nn.functional.cosine_similarity(a[:, :, None], b[:, None], dim=-1))
    assert unit(torch.zeros(1, 3)).tolist() == [[0, 0, 0]]
    masked = mask_classes(torch.zeros(1, 2), torch.tensor([True, False])).softmax(-1)
    assert masked.tolist() == [[1, 0]]


def test_places_count_what_is_smaller_and_real() -> None:
    order = torch.tensor([0.5, 0.1, 0.5, 0.9, 0.2])
    real = torch.tensor([[True] * 5, [True, False, True, True, False]])
    assert places(order, real).tolist() == [[2, 0, 2, 4, 1], [0, 3, 0, 2, 3]]
