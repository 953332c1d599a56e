"""SimpleShot, BD-CSPN, LaplacianShot, and paper 155: clustering with a few labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits
from sklearn.metrics import normalized_mutual_info_score
from torch import Tensor

from handful.adapt.bd_cspn import BDCSPN, rectified
from handful.adapt.clustering import STRENGTHS, LaplacianClustering, Prototype, alternate, cluster
from handful.adapt.laplacian import LaplacianShot, energy, sweeps
from handful.adapt.simpleshot import SimpleShot
from handful.core.neighbours import Neighbours
from handful.core.softem import Rows, shares
from handful.core.task import Background, Query, Task, make_task
from handful.errors import BadInput

Golden = Callable[[str], tuple[dict[str, Any], Any]]


def read(golden: Golden) -> tuple[Task, Any, Tensor]:
    inputs, expected = golden("laplacianshot")
    support, query = (torch.tensor(inputs[name], dtype=torch.float64) for name in ("support", "query"))
    labels = torch.tensor(inputs["labels"]).expand(len(support), -1)
    return make_task(support, labels, query=Query(query)), expected, torch.tensor(inputs["unary"], dtype=torch.float64)


def answers(head: Any, task: Task) -> Tensor:
    return torch.as_tensor(head.logits(task))


def blobs(noise: float = 0.6, queries: int = 10, seed: int = 0, width: int = 6) -> tuple[Task, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    centre = torch.randn(3, 1, width, generator=draw, dtype=torch.float64)
    x = centre + noise * torch.randn(3, 2 + queries, width, generator=draw, dtype=torch.float64)
    labels = torch.arange(3).repeat_interleave(2)
    task = make_task(x[:, :2].flatten(0, 1), labels, ways=3, query=Query(x[:, 2:].flatten(0, 1)))
    return task, torch.arange(3).repeat_interleave(queries)


class TestLaplacian:
    @pytest.mark.paper(155, oracle="d")
    def test_sweeps_are_those_of_the_authors(self, golden: Golden) -> None:
        task, expected, unary = read(golden)
        assert task.query is not None
        q = torch.nn.functional.normalize(task.query.x[0], dim=-1)
        real = torch.ones(len(q), dtype=torch.bool)
        pull, a = Neighbours.of(q, 2, real).sum, unary.T
        z, logits = sweeps(a, pull, 0.7, 20, (-a).softmax(-2), real)
        torch.testing.assert_close(z.T, torch.tensor(expected["scores"], dtype=z.dtype), atol=1e-6, rtol=0)
        assert logits.argmax(-2).tolist() == expected["labels"]
        one = sweeps(a, pull, 0.7, 1, (-a).softmax(-2), real)[0]
        w = torch.zeros(15, 15, dtype=q.dtype)
        for p in range(15):  # the loop the authors' matrices stand for
            w[p, torch.cdist(q[[p]], q)[0].argsort()[1:3]] = 1
        loop = torch.stack([(0.7 * w[p] @ (-unary).softmax(-1) - unary[p]).softmax(-1) for p in range(15)])
        torch.testing.assert_close(one.T, loop)

    def test_the_whole_is_that_of_the_authors(self, golden: Golden) -> None:
        task, expected, _ = read(golden)
        head = LaplacianShot()
        assert task.query is not None
        mean = head.move(head.start(task), task.query)[1]["mean"]
        torch.testing.assert_close(mean, torch.tensor(expected["prototypes"], dtype=mean.dtype), atol=1e-8, rtol=0)
        assert answers(head, task).argmax(-1).tolist() == expected["predictions"]

    @pytest.mark.paper(155, oracle="b")
    def test_the_energy_falls_where_the_graph_allows_it(self) -> None:
        draw = torch.Generator().manual_seed(0)
        w = torch.rand(12, 12, generator=draw, dtype=torch.float64)
        w = w @ w.T / 10
        unary = torch.rand(3, 12, generator=draw, dtype=torch.float64)
        z, before = (-unary).softmax(-2), torch.inf
        for _ in range(15):
            z = sweeps(unary, lambda z: z @ w, 0.5, 1, z, torch.ones(12, dtype=torch.bool))[0]
            now = float(energy(z, unary, z @ w / 2, 0.5))  # half: each pair stands there twice
            assert now <= before + 1e-12
            before = now

    @pytest.mark.paper(155, oracle="c")
    def test_connected_queries_share_a_class_when_nothing_else_counts(self) -> None:
        task, _ = blobs()
        assert task.query is not None
        apart = torch.cat([task.query.x[:5], task.query.x[5:10] + 100])
        head = LaplacianShot(lam=1e4, knn=5, norm="UN", rectify=None, symmetric=True, n_inner=200)
        found = answers(head, replace(task, query=Query(apart))).argmax(-1)
        assert len(set(found[:5].tolist())) == len(set(found[5:].tolist())) == 1

    def test_easyfsl_is_a_choice_of_parameters(self) -> None:
        """What easyfsl 1.5 does, written out, on one task; its own numbers are compared in ``benchmarks``."""
        task, _ = blobs()
        assert task.query is not None
        s, q = task.support, task.query.x
        proto, moved = s.unflatten(0, (3, 2)).mean(1), q + s.mean(0) - q.mean(0)
        cosine = torch.nn.functional.cosine_similarity
        cs, cq = (cosine(x[:, None], proto[None], dim=-1) for x in (s, moved))
        weight = torch.cat([task.labels * cs.exp(), torch.nn.functional.one_hot(cq.argmax(-1), 3) * cq.exp()])
        better = (weight / weight.sum(0)).T @ torch.cat([s, moved])
        got = answers(BDCSPN(norm="UN", temperature=1.0, shifted=False, scale=1.0), task)
        torch.testing.assert_close(got, cosine(q[:, None], better[None], dim=-1))
        head = LaplacianShot(norm="UN", lam=0.7, rectify="share", temperature=1.0, shifted=False)
        mean = head.move(head.start(task), task.query)[1]["mean"]
        torch.testing.assert_close(mean, better)
        torch.testing.assert_close(
            SimpleShot(norm="UN", metric="cosine").logits(task), cosine(q[:, None], proto, dim=-1)
        )

    def test_simpleshot_centres_by_the_base_classes(self) -> None:
        task, _ = blobs()
        base = torch.randn(50, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64) + 3
        assert task.query is not None
        unit = torch.nn.functional.normalize
        s, q = unit(task.support - base.mean(0), dim=-1), unit(task.query.x - base.mean(0), dim=-1)
        want = -torch.cdist(q, s.unflatten(0, (3, 2)).mean(1)).square()
        torch.testing.assert_close(answers(SimpleShot(), replace(task, background=Background(base))), want)

    def test_a_class_nobody_belongs_to_keeps_its_mean(self) -> None:
        z = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 1.0]])
        y = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
        y = torch.cat([y, y[2:]])  # class 1 lies behind class 0 for the only query
        rows = Rows.of(torch.cat([z, torch.tensor([[1.0, 0.0]])]))
        a = rectified(rows, y, torch.ones(1, dtype=torch.bool), 10.0, "mean")
        torch.testing.assert_close((a @ rows.z)[1], z[1] * a[1, 1])
        assert a.isfinite().all()


class TestClustering:
    @pytest.mark.paper(155, oracle="a")
    def test_hard_and_without_graph_it_is_k_means(self) -> None:
        x, _ = load_digits(return_X_y=True)
        x = x[:400]
        start = x[:10]
        want = KMeans(10, init=start, n_init=1, tol=0).fit_predict(x)
        rows = Rows.of(torch.as_tensor(x * 30))  # sharp
        one = torch.ones(10, dtype=torch.bool), torch.ones(400, dtype=torch.bool)
        a = torch.eye(400, dtype=torch.float64)[:10]
        mean = Prototype("mean", 1.0)
        got, _ = alternate(rows, a, a[:, :0], *one, torch.zeros_like, 0.0, mean, 300, 1)
        assert got.argmax(-2).tolist() == want.tolist()

    @pytest.mark.paper(155, oracle="e")
    def test_labelled_rows_never_change(self) -> None:
        """However far from their class they lie, they pull its prototype with their whole weight."""
        task, _ = blobs()
        assert task.query is not None
        head = LaplacianClustering(lam=0.0, norm="UN", rectify=None, n_outer=1)
        state = head.start(replace(task, labels=task.labels.roll(1, -1)))
        logits, after = head.move(state, task.query)
        p = torch.cat([state["y"].T, logits.softmax(-1).T], -1)
        torch.testing.assert_close(after["mean"], shares(p) @ torch.cat([state["support"], task.query.x]))

    @pytest.mark.paper(155, oracle="f")
    def test_clusters_of_digits_are_better_than_those_of_k_means(self) -> None:
        x, y = load_digits(return_X_y=True)
        x = x[:600] / 16
        plain = KMeans(10, n_init=1, random_state=0).fit_predict(x)
        found, _ = cluster(torch.as_tensor(x), 10, lam=1.0, knn=10, prototype="mode")
        assert normalized_mutual_info_score(y[:600], found) >= normalized_mutual_info_score(y[:600], plain)

    @pytest.mark.parametrize("kind", ["mean", "mode"])
    def test_prototypes_are_where_their_formula_says(self, kind: Any) -> None:
        draw = torch.Generator().manual_seed(0)
        z = torch.rand(3, 8, generator=draw, dtype=torch.float64)
        rows = Rows.of(torch.randn(8, 4, generator=draw, dtype=torch.float64))
        a = Prototype(kind, 2.0).update(rows, shares(z), z)
        for _ in range(30):
            a = Prototype(kind, 2.0).update(rows, a, z)
        m = a @ rows.z
        density = torch.exp(-torch.cdist(m, rows.z).square() / 8) if kind == "mode" else torch.ones(3, 8)
        torch.testing.assert_close(m, (z * density) @ rows.z / (z * density).sum(-1, keepdim=True), atol=1e-6, rtol=0)

    def test_the_strength_is_chosen_on_base_classes(self) -> None:
        draw = torch.Generator().manual_seed(0)
        centre = 2 * torch.randn(12, 1, 6, generator=draw)
        base = (centre + 0.8 * torch.randn(12, 30, 6, generator=draw)).flatten(0, 1)
        task, _ = blobs()
        task = replace(
            task.map(lambda x: x.float()), background=Background(base, torch.arange(12).repeat_interleave(30))
        )
        task = replace(task, labels=task.labels.float(), weight=task.weight.float())
        head = LaplacianClustering()
        chosen = float(head.start(task)["lam"])
        assert round(chosen, 6) in STRENGTHS
        assert float(head.start(replace(task, background=None))["lam"]) == 1.0
        assert head.held(head.start(task)).lam == pytest.approx(chosen)

    def test_queries_help(self) -> None:
        better = []
        for seed in range(20):
            task, truth = blobs(noise=1.8, seed=seed, width=40, queries=20)
            ours, plain = (answers(h, task).argmax(-1) == truth for h in (LaplacianClustering(), SimpleShot()))
            better.append(float(ours.double().mean() - plain.double().mean()))
        assert np.mean(better) > 0.02

    def test_what_makes_no_sense_is_refused(self) -> None:
        task, _ = blobs()
        for params, match in (({"lam": -1.0}, "lam"), ({"knn": 1}, "knn"), ({"prototype": "median"}, "prototype")):
            with pytest.raises(BadInput, match=match):
                LaplacianClustering(**params).logits(task)  # type: ignore[arg-type]
        with pytest.raises(BadInput, match="30 queries"):
            LaplacianClustering(knn=31).logits(task)
        with pytest.raises(BadInput, match="10 clusters"):
            cluster(torch.zeros(5, 2), 10)
        rows = torch.randn(9, 2, generator=torch.Generator().manual_seed(0))
        wrong: list[tuple[dict[str, Any], str]] = [
            ({"prototype": "median"}, "prototype is one of"),
            ({"lam": -1.0}, "lam must be"),
            ({"sigma": 0.0}, "sigma must be"),
            ({"knn": 1}, "knn must be"),
            ({"n_outer": 0}, "n_outer must be"),
        ]
        for params, match in wrong:
            with pytest.raises(BadInput, match=match):
                cluster(rows, 2, **params)
        for bad in (rows[0], rows / 0):
            with pytest.raises(BadInput, match="x must be rows"):
                cluster(bad, 2)
