"""Losses of labels in a tree (203)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from handful.core.hierarchy import Hierarchy
from handful.errors import BadInput
from handful.tune.hierarchical import chain, chain_loss, contrast_loss, first_rows, level_answers, level_loss

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "hierverb.json").read_text(encoding="utf-8"))
TREE = Hierarchy.of([
    "a > a > a", "a > a > b", "a > b > a", "b > a > a", "b > a > b", "b > b > a", "b > b > b",
])  # fmt: skip
"""Parents of the second level 0 0 1 1, of the third 0 0 1 2 2 3 3."""


def flat(classes: int, depth: int) -> Hierarchy:
    """So many top labels, one child each."""
    return Hierarchy.of(" > ".join([f"{c:02d}", *["x"] * (depth - 1)]) for c in range(classes))


@pytest.fixture
def logits() -> list[Tensor]:
    g = torch.Generator().manual_seed(4)
    return [torch.randn(9, len(level), generator=g) for level in TREE.levels]


def test_the_tree_knows_parents() -> None:
    assert TREE.depth == 3 and [len(level) for level in TREE.levels] == [2, 4, 7]
    assert [p.tolist() for p in TREE.parents] == [[0, 0, 1, 1], [0, 0, 1, 2, 2, 3, 3]]
    leaves = TREE.leaves(["b > a > b", "a > a > a"])
    assert [y.tolist() for y in TREE.gold(leaves)] == [[1, 0], [2, 0], [4, 0]]
    edges = [("cat", "animal"), ("dog", "animal"), ("oak", "plant")]
    assert Hierarchy.from_edges(edges).levels == (("animal", "plant"), ("animal > cat", "animal > dog", "plant > oak"))


@pytest.mark.paper(203, oracle="a")
def test_probabilities_sum_to_one_at_every_level(logits: list[Tensor]) -> None:
    found = chain(logits[-1], TREE)
    assert [q.shape[1] for q in found] == [2, 4, 7]
    for q in found:
        torch.testing.assert_close(q.sum(1), torch.ones(9))
    torch.testing.assert_close(found[0][:, 1], found[-1][:, 3:].sum(1))


@pytest.mark.paper(203, oracle="b")
def test_one_level_has_nothing_above_it(logits: list[Tensor]) -> None:
    one = Hierarchy.of(["a", "b"])
    leaves = torch.tensor([0, 1, 0, 1, 1, 0, 0, 1, 0])
    assert float(chain_loss(logits[0], leaves, one)) == 0
    assert float(contrast_loss(torch.randn(9, 1, 3), leaves, one)) == 0
    torch.testing.assert_close(
        level_loss(logits[:1], leaves, one), torch.nn.functional.cross_entropy(logits[0], leaves)
    )


@pytest.mark.paper(203, oracle="c")
def test_the_contrast_is_the_authors() -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(10, 2, 16, generator=g)
    coarse, _ = torch.randint(0, 3, (10,), generator=g), torch.randint(0, 7, (10,), generator=g)
    found = contrast_loss(x, coarse, flat(3, 2))
    assert float(found) == pytest.approx(GOLDEN["contrast"]["two"], rel=1e-5)
    alike = contrast_loss(x, torch.ones(10, dtype=torch.long), flat(3, 2))
    assert float(alike) == pytest.approx(0, abs=1e-7)


@pytest.mark.paper(203, oracle="c")
def test_the_contrast_of_three_levels_is_the_authors(monkeypatch: pytest.MonkeyPatch) -> None:
    g = torch.Generator().manual_seed(0)
    (
        torch.randn(10, 2, 16, generator=g),
        torch.randint(0, 3, (10,), generator=g),
        torch.randint(0, 7, (10,), generator=g),
    )
    x = torch.randn(8, 3, 5, generator=g)
    drawn = [torch.randint(0, n, (8,), generator=g) for n in (2, 3, 4)]
    tree = flat(4, 3)  # the authors' numbers were drawn for labels that are no tree
    monkeypatch.setattr(Hierarchy, "gold", lambda self, leaves: drawn)
    assert float(contrast_loss(x, drawn[2], tree)) == pytest.approx(GOLDEN["contrast"]["three"], rel=1e-5)


def test_the_chain_is_the_authors_where_that_is_asked_for(logits: list[Tensor]) -> None:
    g = torch.Generator().manual_seed(0)
    for shape in [(10, 2, 16), (8, 3, 5)]:
        torch.randn(shape, generator=g)
        for n in (3, 7) if shape[0] == 10 else (2, 3, 4):
            torch.randint(0, n, (shape[0],), generator=g)
    z, leaves = torch.randn(9, 7, generator=g), torch.randint(0, 7, (9,), generator=g)
    assert float(chain_loss(z, leaves, TREE, "repo")) == pytest.approx(GOLDEN["chain"]["loss"], rel=1e-5)
    y = TREE.gold(leaves)
    want = sum(-float(chain(z, TREE)[at][i, y[at][i]].log()) / 9 for at in (0, 1) for i in range(9))
    assert float(chain_loss(z, leaves, TREE)) == pytest.approx(want, rel=1e-5)
    sure = torch.full((1, 7), -200.0)
    sure[0, 0] = 200
    assert torch.isfinite(chain_loss(sure, torch.tensor([6]), TREE))


@pytest.mark.paper(203, oracle="e")
def test_rows_begin_with_names_and_children() -> None:
    names = [torch.eye(n, 8) for n in (2, 4, 7)]
    rows = first_rows(names, TREE)
    torch.testing.assert_close(rows[2], names[2])
    torch.testing.assert_close(rows[1][0], names[1][0] + (names[2][0] + names[2][1]) / 2)
    torch.testing.assert_close(rows[0][1], names[0][1] + (rows[1][2] + rows[1][3]) / 2)
    assert torch.equal(names[0], torch.eye(2, 8))


def test_answers_by_level_or_by_children(logits: list[Tensor]) -> None:
    assert all(torch.equal(a, z.argmax(1)) for a, z in zip(level_answers(logits, TREE), logits, strict=True))
    z = [torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 0.0, 0.0, 1.0]]), torch.tensor([[0, 0, 0, 0, 0, 0, 9.0]])]
    assert [int(a) for a in level_answers(z, TREE, 0)] == [0, 3, 6]
    assert [int(a) for a in level_answers(z, TREE, 1)] == [1, 3, 6]
    assert [int(a) for a in level_answers(z, TREE, 2)] == [0, 3, 6]


def test_what_cannot_be_is_refused(logits: list[Tensor]) -> None:
    with pytest.raises(BadInput, match="'a > b' has 2 levels, 'a' has 1: give whole paths"):
        Hierarchy.of(["a > b", "a"])
    with pytest.raises(BadInput, match="an empty name"):
        Hierarchy.of(["a >  > b"])
    with pytest.raises(BadInput, match="no labels"):
        Hierarchy.of([])
    with pytest.raises(BadInput, match="two parents, 'b' and 'c'"):
        Hierarchy.from_edges([("a", "b"), ("a", "c")])
    with pytest.raises(BadInput, match="there are no labels"):
        Hierarchy.from_edges([])
    with pytest.raises(BadInput, match="circle"):
        Hierarchy.from_edges([("a", "b"), ("b", "a")])
    with pytest.raises(BadInput, match="below itself"):
        Hierarchy.from_edges([("a", "b"), ("b", "a"), ("c", "a")])
    with pytest.raises(BadInput, match="below itself"):
        Hierarchy.from_edges([("a", "b"), ("b", "a"), ("c", "d")])
    with pytest.raises(BadInput, match="no leaf of the hierarchy"):
        TREE.leaves(["a > a"])
    with pytest.raises(BadInput, match=r"there are \[2, 4\] labels a level here, and \[2, 4, 7\]"):
        level_loss(logits[:2], torch.zeros(9, dtype=torch.long), TREE)
    with pytest.raises(BadInput, match="states of 2 levels, but labels of 3"):
        contrast_loss(torch.zeros(1, 2, 3), torch.tensor([0]), TREE)
    with pytest.raises(BadInput, match="form is"):
        chain_loss(logits[2], torch.zeros(9, dtype=torch.long), TREE, "mean")  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="mode is"):
        level_answers(logits, TREE, 3)  # type: ignore[arg-type]
