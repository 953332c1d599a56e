"""Paper 021: calibrated iterative prototype adaptation; paper 068: prototypes aligned by optimal transport."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from handful.adapt.cipa import CIPA
from handful.adapt.opta import OpTA, standardised, transported
from handful.core.task import Query, Task, make_task
from handful.core.transport import sinkhorn
from handful.errors import BadInput

Golden = Callable[[str], tuple[dict[str, Any], Any]]
unit = torch.nn.functional.normalize


def task(
    n: tuple[int, ...] = (), ways: int = 3, shots: int = 2, queries: int = 6, *, noise: float = 0.5, seed: int = 0
) -> tuple[Task, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    centre = torch.randn(*n, ways, 1, 12, generator=draw, dtype=torch.float64)
    x = centre + noise * torch.randn(*n, ways, shots + queries, 12, generator=draw, dtype=torch.float64)
    labels = torch.arange(ways).repeat_interleave(shots).expand(*n, -1)
    made = make_task(x[..., :shots, :].flatten(-3, -2), labels, query=Query(x[..., shots:, :].flatten(-3, -2)))
    return made, torch.arange(ways).repeat_interleave(queries).expand(*n, -1)


def answers(head: Any, task: Task) -> Tensor:
    return torch.as_tensor(head.logits(task))


class TestCIPA:
    @pytest.mark.paper(21, oracle="a", part="prototype-adaptation")
    def test_without_steps_it_is_the_nearest_class_mean_by_cosine(self) -> None:
        given, _ = task()
        assert given.query is not None
        mean = unit(given.support, dim=-1).unflatten(0, (3, 2)).mean(1)
        want = torch.nn.functional.cosine_similarity(given.query.x[:, None], mean[None], dim=-1)
        torch.testing.assert_close(answers(CIPA(n_steps=0, power=None), given), 10 * want)

    @pytest.mark.paper(21, oracle="b", part="prototype-adaptation")
    def test_a_whole_step_is_soft_k_means_with_the_labels_held(self) -> None:
        given, _ = task()
        assert given.query is not None
        s, q = unit(given.support, dim=-1), unit(given.query.x, dim=-1)
        w = s.unflatten(0, (3, 2)).mean(1)
        p = (10 * q @ unit(w, dim=-1).T).softmax(-1)
        moved = []
        for k in range(3):
            total, weight = torch.zeros(12, dtype=s.dtype), 0.0
            for i in range(2):
                total, weight = total + s[2 * k + i], weight + 1
            for j in range(len(q)):
                total, weight = total + p[j, k] * q[j], weight + float(p[j, k])
            moved.append(total / weight)
        head = CIPA(n_steps=1, alpha=1.0, power=None, recentre=False)
        got = head.move(head.start(given), given.query)[1]["mean"]
        torch.testing.assert_close(got, torch.stack(moved), atol=1e-6, rtol=0)

    @pytest.mark.paper(21, oracle="c", part="prototype-adaptation")
    def test_a_constant_added_to_all_queries_changes_nothing(self) -> None:
        given, _ = task()
        assert given.query is not None
        head = CIPA(power=None)
        moved = make_task(given.support, given.labels.argmax(-1), query=Query(given.query.x + torch.arange(12) / 3))
        torch.testing.assert_close(answers(head, moved), answers(head, given), atol=1e-5, rtol=0)

    @pytest.mark.paper(21, oracle="e", part="prototype-adaptation")
    def test_steps_help(self) -> None:
        given, truth = task((200,), ways=2, shots=1, queries=50, noise=1.4)
        right = [
            (answers(CIPA(n_steps=n, power=None), given).argmax(-1) == truth).double().mean(-1).numpy() for n in (20, 0)
        ]
        assert stats.ttest_rel(*right, alternative="greater").pvalue < 0.01

    def test_what_is_frozen_gives_the_same_answers_alone(self) -> None:
        given, _ = task()
        assert given.query is not None
        head = CIPA(power=None)
        logits, state = head.move(head.start(given), given.query)
        torch.testing.assert_close(head.inductive(state, given.query), logits)

    def test_what_makes_no_sense_is_refused(self) -> None:
        given, _ = task()
        single = make_task(given.support, given.labels.argmax(-1), query=Query(given.support[:1]))
        with pytest.raises(BadInput, match="single query"):
            CIPA(power=None).logits(single)
        with pytest.raises(BadInput, match="Negative"):
            CIPA().logits(given)
        with pytest.raises(BadInput, match="alpha"):
            CIPA(alpha=-1.0).logits(given)


class TestOpTA:
    def test_prototypes_are_those_of_the_authors(self, golden: Golden) -> None:
        inputs, expected = golden("opta")
        support, query = (torch.tensor(inputs[name], dtype=torch.float64) for name in ("support", "query"))
        labels = torch.tensor(inputs["labels"])
        for name, rows in (("several", slice(None)), ("one", slice(0, None, 2))):
            want, head = torch.tensor(expected[name], dtype=torch.float64), OpTA(C=1e6)
            for b in range(2):
                state = head.start(make_task(support[b][rows], labels[rows]))
                moved = head.moved(state, standardised(query[b]), torch.ones(15, dtype=torch.bool))
                torch.testing.assert_close(moved, want[b], atol=2e-3, rtol=0)  # they stop earlier

    @pytest.mark.paper(68, oracle="a", part="alignment")
    def test_plan_and_map_are_those_of_pot(self, golden: Golden) -> None:
        inputs, expected = golden("pot")
        x, y = (torch.tensor(inputs[name], dtype=torch.float64) for name in ("x", "y"))
        ones = torch.ones(5, dtype=torch.bool), torch.ones(9, dtype=torch.bool)
        moved = transported(x, ones[0], y, ones[1], torch.tensor(1), 0.05, 1e-12, 5000)
        torch.testing.assert_close(moved, torch.tensor(expected["mapped"], dtype=x.dtype), atol=1e-5, rtol=0)
        cost, a, b = (torch.tensor(inputs[name], dtype=torch.float64) for name in ("cost", "a", "b"))
        want = torch.tensor(expected["plans"], dtype=x.dtype)[0]
        torch.testing.assert_close(sinkhorn(cost, 0.1, a, b, tol=1e-10), want, atol=1e-5, rtol=0)

    @pytest.mark.paper(68, oracle="b", part="alignment")
    def test_much_regularisation_gives_the_mean_and_none_the_match(self) -> None:
        draw = torch.Generator().manual_seed(0)
        p = 4 * torch.randn(4, 8, generator=draw, dtype=torch.float64)
        q = (p + 0.1 * torch.randn(4, 8, generator=draw, dtype=torch.float64))[[2, 0, 3, 1]]
        ones, once = torch.ones(4, dtype=torch.bool), torch.tensor(1)
        flat = transported(p, ones, q, ones, once, 1e6, 1e-12, 1000)
        torch.testing.assert_close(flat, q.mean(0).expand(4, -1), atol=1e-5, rtol=0)
        sharp = transported(p, ones, q, ones, once, 1e-3, 1e-12, 1000)
        torch.testing.assert_close(sharp, q[[1, 3, 0, 2]], atol=1e-6, rtol=0)

    @pytest.mark.paper(68, oracle="c", part="alignment")
    def test_without_passes_it_is_logistic_regression_on_class_means(self) -> None:
        given, _ = task(shots=1)
        assert given.query is not None
        z, q = standardised(given.support).numpy(), standardised(given.query.x).numpy()
        want = LogisticRegression(C=1.0, max_iter=10000, tol=1e-10).fit(z, np.arange(3)).predict_proba(q)
        np.testing.assert_allclose(answers(OpTA(passes=0), given).softmax(-1), want, atol=1e-4)

    def test_transport_helps(self) -> None:
        given, truth = task((50,), ways=5, shots=1, queries=15, noise=1.0)
        right = [float((answers(OpTA(passes=n), given).argmax(-1) == truth).double().mean()) for n in (5, 0)]
        assert right[0] > right[1] + 0.02

    def test_what_makes_no_sense_is_refused(self) -> None:
        given, _ = task()
        for params, match in (({"passes": -1}, "passes"), ({"passes": "all"}, "'auto'"), ({"eps": 0.0}, "eps")):
            with pytest.raises(BadInput, match=match):
                OpTA(**params).logits(given)  # type: ignore[arg-type]
        flat = make_task(given.support, given.labels.argmax(-1), query=Query(torch.ones(2, 12, dtype=torch.float64)))
        with pytest.raises(BadInput, match="row 0 cannot be standardised"):
            OpTA().logits(flat)
        same = make_task(given.support[:1].expand(2, -1), torch.arange(2), query=Query(given.support[:1]))
        with pytest.raises(BadInput, match="nothing to transport"), warnings.catch_warnings():
            OpTA().logits(same)
