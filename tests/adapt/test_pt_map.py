"""Paper 042: PT-MAP."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from handful.adapt import head
from handful.adapt.pt_map import PTMAP
from handful.adapt.transforms import Power, Unit, lossless
from handful.core.softem import Rows, shares
from handful.core.task import Query, Task, make_task
from handful.core.transport import sinkhorn
from handful.errors import BadInput


def task(
    ways: int = 3, shots: int = 2, queries: int = 5, width: int = 40, *, seed: int = 0, apart: float = 1.0
) -> Task:
    """Positive features around one centre a class, the queries class by class."""
    draw = torch.Generator().manual_seed(seed)
    centre = apart * torch.rand(ways, 1, width, generator=draw, dtype=torch.float64)
    x = (centre + 0.3 * torch.rand(ways, shots + queries, width, generator=draw, dtype=torch.float64)).abs()
    labels = torch.arange(ways).repeat_interleave(shots)
    return make_task(x[:, :shots].flatten(0, 1), labels, ways=ways, query=Query(x[:, shots:].flatten(0, 1)))


def plan(head: PTMAP, task: Task) -> Tensor:
    """``[Q, C]``."""
    out = head.logits(task)
    assert isinstance(out, Tensor)
    return out.exp()


def test_plans_are_those_of_the_authors(golden: Callable[[str], tuple[dict[str, Any], Any]]) -> None:
    inputs, expected = golden("pt_map")
    support, query = torch.tensor(inputs["support"]).double(), torch.tensor(inputs["query"]).double()
    labels = torch.tensor(inputs["labels"]).expand(len(support), -1)
    got = plan(PTMAP(), make_task(support, labels, query=Query(query)))
    # They stop when a sweep changes little, which is before it is solved.
    torch.testing.assert_close(got, torch.tensor(expected["plan"]).double(), atol=5e-4, rtol=0)


@pytest.mark.paper(42, oracle="a")
def test_the_plan_is_optimal_transport(golden: Callable[[str], tuple[dict[str, Any], Any]]) -> None:
    """The transport of the last centres solves POT's problem; POT's own numbers are in ``tests/core``."""
    inputs, expected = golden("pot")
    cost, b = torch.tensor(inputs["cost"]).double(), torch.tensor(inputs["b"]).double()
    got = sinkhorn(cost, 0.1, 9 * torch.tensor(inputs["a"]).double(), 9 * b, tol=1e-12)
    torch.testing.assert_close(got, 9 * torch.tensor(expected["plans"][0]).double(), atol=1e-5, rtol=0)


@pytest.mark.paper(42, oracle="b")
@pytest.mark.paper(42, oracle="b", part="lossless-projection")
def test_coordinates_of_the_span_change_nothing() -> None:
    given = task()
    s, q = (Power().apply({}, x) for x in (given.support, given.query.x))  # type: ignore[union-attr]
    bare = PTMAP(beta=1.0, signed=True)
    rows = lossless(s, q)
    assert rows[0].shape[-1] < s.shape[-1]
    full, short = (plan(bare, make_task(a, given.labels.argmax(-1), query=Query(b))) for a, b in ((s, q), rows))
    torch.testing.assert_close(short, full, atol=1e-8, rtol=0)


@pytest.mark.paper(42, oracle="c")
def test_without_sharpness_the_plan_is_flat_and_with_it_a_matching() -> None:
    given = task(queries=4, apart=3.0)
    torch.testing.assert_close(plan(PTMAP(lam=1e-9), given), torch.full((12, 3), 1 / 3, dtype=torch.float64))
    flat = plan(PTMAP(lam=1e-9, class_prior=[0.5, 0.25, 0.25], n_steps=3), given)
    torch.testing.assert_close(flat[0], torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64))
    sharp = plan(PTMAP(lam=1e4), given)
    torch.testing.assert_close(sharp, torch.eye(3, dtype=torch.float64).repeat_interleave(4, 0), atol=1e-6, rtol=0)


@pytest.mark.paper(42, oracle="d")
def test_centres_that_stay_give_the_best_balanced_assignment() -> None:
    """With sharp costs: the cheapest of all assignments of two queries a class."""
    given = task(ways=3, queries=2, apart=0.1, seed=3)
    still = PTMAP(alpha=0.0, lam=1e4, max_sweeps=20000)
    state = still.start(given)
    assert given.query is not None
    cost = -still.inductive({**state, "center": still.move(state, given.query)[1]["center"]}, given.query)
    choices = [list(c) for c in set(itertools.permutations([0, 0, 1, 1, 2, 2]))]
    best = min(choices, key=lambda c: float(cost[torch.arange(6), torch.tensor(c)].sum()))
    assert plan(still, given).argmax(-1).tolist() == best


@pytest.mark.paper(42, oracle="e")
def test_a_rotation_after_the_power_changes_nothing() -> None:
    given = task()
    q, _ = torch.linalg.qr(torch.randn(40, 40, generator=torch.Generator().manual_seed(1), dtype=torch.float64))
    bare, power = PTMAP(beta=1.0, signed=True), Power()
    plain = given.map(lambda x: power.apply({}, x))
    torch.testing.assert_close(plan(bare, plain.map(lambda x: x @ q)), plan(bare, plain), atol=1e-5, rtol=0)
    torch.testing.assert_close(plan(PTMAP(), given), plan(bare, plain), atol=1e-5, rtol=0)


@pytest.mark.paper(42, oracle="f")
@pytest.mark.parametrize("prior", ["uniform", [0.2, 0.3, 0.5]])
def test_every_class_gets_its_share(prior: Any) -> None:
    got = plan(PTMAP(class_prior=prior), task())
    share = torch.full((3,), 1 / 3) if prior == "uniform" else torch.tensor(prior)
    torch.testing.assert_close(got.sum(0), 15 * share.double(), atol=1e-4, rtol=0)


@pytest.mark.paper(42, oracle="f", part="inductive")
@pytest.mark.paper(42, oracle="e", part="inductive")
def test_what_is_frozen_answers_alone_and_is_the_nearest_centre() -> None:
    given = task(queries=6, seed=2)
    assert given.query is not None
    x, q = given.support.numpy(), given.query.x.numpy()
    names = np.array(["a", "b", "c"])[given.labels.argmax(-1).numpy()]
    fitted = head("pt-map").fit(x, names)
    still = fitted.frozen(q)  # type: ignore[attr-defined]
    together, alone = still.logits(q), np.concatenate([still.logits(q[[i]]) for i in range(len(q))])
    np.testing.assert_allclose(alone, together)
    z = Unit().fit_transform(Power().fit_transform(q))
    z = Unit().fit_transform(z - z.mean(0))
    centre = still.state_["mean"].numpy()
    nearest = np.square(z[:, None] - centre[None]).sum(-1).argmin(-1)
    assert (still.predict(q) == np.array(["a", "b", "c"])[nearest]).all()
    assert (fitted.fit_predict(x, names, q) == names[::2].repeat(6)).mean() > 0.9  # type: ignore[attr-defined]


@pytest.mark.paper(42, oracle="e", part="power-transform")
@pytest.mark.paper(42, oracle="a", part="power-transform")
def test_the_power_is_the_first_step() -> None:
    given = task()
    got = Power().apply({}, given.support)
    torch.testing.assert_close(got, (given.support + 1e-6).sqrt())
    torch.testing.assert_close(Power(beta=0.0).apply({}, given.support), (given.support + 1e-6).log())
    rows = Rows.of(torch.cat([got, got]))
    assert rows.sqeuclidean(shares(torch.eye(12, dtype=torch.float64))).diagonal().abs().max() < 1e-9


def test_what_makes_no_sense_is_refused() -> None:
    given = task()
    for params, match in (
        ({"class_prior": [0.5, 0.5]}, "3 classes"),
        ({"class_prior": [0.5, 0.4, 0.3]}, "add up to 1.2"),
        ({"class_prior": "even"}, "'uniform'"),
        ({"lam": 0.0}, "lam"),
        ({"alpha": 2.0}, "alpha"),
        ({"n_steps": -1}, "n_steps"),
    ):
        with pytest.raises(BadInput, match=match):
            PTMAP(**params).logits(given)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match=r"Negative .* signed=True"):
        PTMAP().logits(given.map(lambda x: x - 1))
    single = make_task(given.support, given.labels.argmax(-1), query=Query(given.support[:1]))
    with pytest.raises(BadInput, match="single query"):
        PTMAP().logits(single)
    with pytest.warns(UserWarning, match="1 queries"):
        PTMAP(center=False).logits(single)
