"""Which task to train on first (114): rankers, task vectors, how good a ranking is, and the authors' code."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from handful.core.late_interaction import Tokens
from handful.core.library import ranked
from handful.curate import (
    Source,
    TaskEmb,
    brought,
    by_chance,
    by_few_shots,
    by_proxy,
    by_size,
    by_task_embedding,
    by_vector,
    few_shot_embedding,
    fused,
    ndcg,
    of_kind_first,
    regret,
    text_vector,
    train_source,
    transfer,
)
from handful.curate.select_source import few_steps, logme
from handful.curate.task_vectors import alike
from handful.curate.transfer import Transfer, accuracy, relative
from handful.errors import BadInput
from handful.tune import Adapter, Data, Delta, Linear, Placed, Recipe, Stage, Where, tune
from handful.tune.moved import Moved
from handful.tune.recipe import Readout
from handful.tune.tuned import Tuned

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "task_selection.json").read_text(encoding="utf-8"))
RECIPE = Recipe(
    (Placed(Adapter(width=8), Where(names="0")),), stages=(Stage(steps=60, lr=0.02, batch=64),), readout=Linear
)


def net() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return nn.Sequential(nn.Linear(8, 12), nn.Tanh(), nn.Linear(12, 6)).eval()


def planted(seed: int) -> tuple[nn.Module, list[Source], Data, Data, str]:
    """Four topics with two label rules each, a source for every pair; a target of one of them; its few, its others."""
    model, g = net(), torch.Generator().manual_seed(seed)
    rules = torch.randn(4, 2, 8, generator=g)

    def data(topic: int, rule: int, n: int) -> Data:
        x = torch.randn(n, 8, generator=g) + 2 * torch.eye(8)[topic]
        z = (x - 2 * torch.eye(8)[topic]) @ rules[topic, rule]
        labels = (z > 0).long()
        flipped = torch.rand(n, generator=g) < 0.05
        return Data(x, torch.where(flipped, 1 - labels, labels), ("no", "yes"))

    sources = []
    for topic in range(4):
        for rule in range(2):
            examples = data(topic, rule, 256)
            tuned = tune(model, examples, RECIPE, seed=seed)
            sources.append(Source(f"{topic}-{rule}", examples, tuned.delta, tuned.readout, f"topic {topic}"))
    topic, rule = seed % 4, seed % 2
    return model, sources, data(topic, rule, 40), data(topic, rule, 400), f"{topic}-{rule}"


@pytest.fixture(scope="module")
def bert() -> nn.Module:
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=60, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=32,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return BertModel(config).eval()


def vector(data: Data) -> Tensor:
    assert isinstance(data.inputs, Tensor)
    return text_vector(lambda x: Tokens(x[:, None], torch.ones(len(x), 1)), data)


TRUE = {"a": 0.8, "b": 0.7, "c": 0.6}


@pytest.mark.paper(114, oracle="a", part="study")
def test_regret_by_hand() -> None:
    worst_first = ["c", "b", "a"]
    assert [regret(TRUE, worst_first, k).percent for k in (1, 2, 3)] == pytest.approx([25.0, 12.5, 0.0])
    assert regret(TRUE, ["a", "c", "b"], 1).percent == 0
    g = np.random.default_rng(0)
    for _ in range(20):
        true = {str(i): float(v) for i, v in enumerate(g.random(7))}
        order = [str(i) for i in g.permutation(7)]
        found = [regret(true, order, k).absolute for k in range(1, 8)]
        assert found == sorted(found, reverse=True) and found[-1] == 0
    below = regret({"a": -0.1, "b": -0.3}, ["b", "a"], 1)  # such as a correlation
    assert below.percent is None and below.absolute == pytest.approx(0.2)
    assert brought(TRUE, worst_first, 2) == {"mean": pytest.approx(0.65), "best": 0.7}


@pytest.mark.paper(114, oracle="b", part="study")
def test_ndcg_is_scikit_learns() -> None:
    from sklearn.metrics import ndcg_score

    g = np.random.default_rng(0)
    for _ in range(20):
        values = g.random(6)
        true = {str(i): float(v) for i, v in enumerate(values)}
        order = g.permutation(6)
        place = np.empty(6)
        place[order] = -np.arange(6)
        theirs = ndcg_score((2**values - 1)[None], place[None])
        assert ndcg(true, [str(i) for i in order]) == pytest.approx(theirs, abs=1e-9)
        assert ndcg(true, [one.name for one in ranked(true)]) == pytest.approx(1)
    assert relative({"a": 3.0, "b": 1.0, "c": 2.0}) == {"a": 1.0, "b": 0.0, "c": 0.5}


@pytest.mark.paper(114, oracle="c", part="method")
def test_vectors_of_data_sets_are_means() -> None:
    g = torch.Generator().manual_seed(0)
    states, mask = torch.randn(10, 5, 4, generator=g), (torch.rand(10, 5, generator=g) < 0.6).long()
    mask[:, 0] = 1

    def of(rows: list[int], batch: int = 3) -> Tensor:
        data = Data(rows, torch.zeros(len(rows)).long())
        return text_vector(lambda some: Tokens(states[some], mask[some]), data, batch)

    first, second = list(range(5)), list(range(5, 10))
    torch.testing.assert_close(of(first + first), of(first))
    torch.testing.assert_close(of(first + second), (of(first) + of(second)) / 2)
    by_hand = torch.stack([states[i][mask[i].bool()].mean(0) for i in first]).mean(0)
    torch.testing.assert_close(of(first).float(), by_hand)
    mask[3] = 0
    with pytest.raises(BadInput, match="item 3 has no token"):
        of(first)


@pytest.mark.paper(114, oracle="d", part="method")
def test_the_target_itself_is_the_nearest() -> None:
    model, sources, few, _, _ = planted(0)
    itself = Source("itself", few)
    found = ranked(by_vector([*sources, itself], few, vector))
    assert found[0].name == "itself" and found[0].score == pytest.approx(1, abs=1e-6)
    target = sources[3]
    for join in ("mean", "rrf"):
        scores = by_task_embedding(model, sources, target, TaskEmb(layers=("0",)), join)  # type: ignore[arg-type]
        assert ranked(scores)[0].name == target.name
        if join == "mean":
            assert scores[target.name] == pytest.approx(1, abs=1e-6)


@pytest.mark.paper(114, oracle="e", part="method")
def test_fisher_of_a_logistic_regression() -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(4096, 5, generator=g)
    w = torch.randn(5, generator=g)
    labels = (torch.rand(4096, generator=g) < torch.sigmoid(x @ w)).long()

    class Logit(Readout):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(w.clone())

        def forward(self, features: Tensor, model: nn.Module) -> Tensor:
            z = features @ self.weight
            return torch.stack([torch.zeros_like(z), z], 1)

    data, model = Data(x, labels), nn.Identity()
    p = torch.sigmoid(x @ w)
    closed = ((p - labels)[:, None] * x).square().mean(0)
    each = TaskEmb(batch=1, layers=()).of(model, Logit(), Data(x[:200], labels[:200]))["readout.weight"]
    torch.testing.assert_close(each, ((p - labels)[:, None] * x)[:200].square().mean(0), atol=1e-6, rtol=1e-5)
    batched = TaskEmb(batch=8, layers=()).of(model, Logit(), data)["readout.weight"]
    # The mean of 8 has an 8th of the variance, and an 8th as many squares are divided by all examples.
    assert float((batched * 64 / closed).mean()) == pytest.approx(1, rel=0.1)


@pytest.mark.paper(114, oracle="f", part="method")
def test_the_source_of_the_same_rule_is_found() -> None:
    found = {"fsft": 0, "linear": 0, "knn": 0, "logme": 0, "topic": 0}
    seeds = 10
    for seed in range(seeds):
        model, sources, few, others, best = planted(seed)
        stage = Stage(steps=10, lr=0.01, batch=20, rate="constant")
        recipe = Recipe(RECIPE.changes, stages=(stage,), readout=Linear)
        found["fsft"] += ranked(by_few_shots(model, sources, few, others, recipe=recipe))[0].name == best
        for kind in ("linear", "knn", "logme"):
            found[kind] += ranked(by_proxy(model, sources, others, kind))[0].name == best  # type: ignore[arg-type]
        nearest = ranked(by_vector(sources, few, vector))[:2]
        found["topic"] += {one.name[0] for one in nearest} == {best[0]}
    assert all(count >= 0.9 * seeds for count in found.values()), found


class Roberta(nn.Module):
    """The states of every token, for lists of ids."""

    def __init__(self) -> None:
        super().__init__()
        from transformers import RobertaConfig, RobertaModel

        self.body = RobertaModel(RobertaConfig(**GOLDEN["inputs"]["settings"]), add_pooling_layer=False).eval()
        filled(self.body)

    def tokens(self, items: list[list[int]]) -> Tokens:
        ids = torch.tensor([item + [1] * (6 - len(item)) for item in items])
        mask = (ids != 1).long()
        return Tokens(self.body(input_ids=ids, attention_mask=mask).last_hidden_state, mask)

    def forward(self, items: list[list[int]]) -> Tensor:
        return self.tokens(items).states[:, 0]


def filled(model: nn.Module) -> None:
    with torch.no_grad():
        for i, (name, p) in enumerate(sorted(model.named_parameters())):
            wave = torch.sin(torch.arange(p.numel(), dtype=torch.float64) * 0.7 + i)
            p.copy_((0.4 * wave + ("LayerNorm.weight" in name)).reshape(p.shape))


@pytest.mark.paper(114, oracle="g", part="method")
def test_as_the_authors_do_it() -> None:
    given, expected = GOLDEN["inputs"], GOLDEN["expected"]
    items = [ids[:n] for ids, n in zip(given["ids"], given["length"], strict=True)]
    data, model = Data(items, torch.tensor(given["labels"])), Roberta()
    for name in ("semb", "textemb"):
        torch.testing.assert_close(
            text_vector(model.tokens, data, 3).float(), torch.tensor(expected[name]), atol=1e-5, rtol=1e-5
        )
    readout = Linear()
    readout.weight, readout.bias = nn.Parameter(torch.zeros(3, 8)), nn.Parameter(torch.zeros(3))
    shaped = nn.Linear(8, 3)
    filled(shaped)
    readout.load_state_dict(shaped.state_dict())
    watched = ("body.encoder.layer.0.attention.self.query", "body.encoder.layer.1.output.dense")
    delta = Delta.begin(model, [Placed(Moved(), Where((), sites=watched))], torch.Generator())
    how = TaskEmb(batch=3, counts=lambda some: model.tokens(some).mask)
    found, theirs = how.of(model, readout, data, delta), expected["taskemb"]
    pairs = {
        "readout.weight": "classifier.weight",
        "readout.bias": "classifier.bias",
        "delta.holders.0.D": "encoder.layer.0.attention.self.query.weight",
        "delta.holders.1.D": "encoder.layer.1.output.dense.weight",
        **{f"body.encoder.layer.{i} output": f"encoder.layer.{i}.layer_output" for i in range(2)},
        **{
            f"body.encoder.layer.{i}.attention.output.dense input": f"encoder.layer.{i}.multihead_output"
            for i in range(2)
        },
    }
    assert set(pairs) == set(found)
    for mine, name in pairs.items():
        wanted = torch.tensor(theirs[name])
        torch.testing.assert_close(found[mine], wanted, atol=1e-5 * float(wanted.max()), rtol=1e-4)


def test_what_is_embedded_is_as_it_was() -> None:
    model, sources, *_ = planted(1)
    source = sources[0]
    assert source.delta is not None and source.readout is not None
    state = {name: p.clone() for name, p in [*model.named_parameters(), *source.delta.named_parameters()]}
    TaskEmb(layers=("0", "2")).of(model, source.readout, source.data, source.delta)
    for name, p in [*model.named_parameters(), *source.delta.named_parameters()]:
        assert torch.equal(p, state[name]) and p.requires_grad and p.grad is None


def test_layers_of_a_tower_that_calls_its_parts_itself() -> None:
    """Blocks without a forward of their own are looked at behind their last norm."""
    from handful.encode.bert_tower import BertTower

    g = torch.Generator().manual_seed(0)
    shapes = {
        "embeddings.word_embeddings.weight": (30, 8), "embeddings.position_embeddings.weight": (10, 8),
        "embeddings.token_type_embeddings.weight": (2, 8), "embeddings.LayerNorm.weight": (8,),
        "embeddings.LayerNorm.bias": (8,),
    }  # fmt: skip
    for part, (out, into) in {
        "attention.self.query": (8, 8), "attention.self.key": (8, 8), "attention.self.value": (8, 8),
        "attention.output.dense": (8, 8), "intermediate.dense": (16, 8), "output.dense": (8, 16),
    }.items():  # fmt: skip
        shapes |= {f"encoder.layer.0.{part}.weight": (out, into), f"encoder.layer.0.{part}.bias": (out,)}
    for part in ("attention.output", "output"):
        shapes |= {f"encoder.layer.0.{part}.LayerNorm.{name}": (8,) for name in ("weight", "bias")}
    tower = BertTower({name: torch.randn(shape, generator=g) for name, shape in shapes.items()}, 2).eval()
    data = Data([[1, 2, 3], [4, 5], [6, 7, 8, 9]], torch.tensor([0, 1, 0]))
    readout = Linear()
    readout.begin(tower, data, g)
    found = TaskEmb(parameters=False).of(tower, readout, data)
    assert list(found) == ["encoder.layer.0.attention.output.dense input", "encoder.layer.0.output.LayerNorm output"]
    assert all(value.shape == (8,) and bool(value.any()) for value in found.values())


def test_few_shot_embeddings_and_few_steps() -> None:
    model, sources, few, *_ = planted(2)
    scores = few_shot_embedding(model, sources[:3], few, TaskEmb(layers=("0",)), steps=5)
    assert scores.keys() == {"0-0", "0-1", "1-0"} and len(set(scores.values())) > 1
    start = sources[0].learnt()
    tuned = few_steps(model, start, few, steps=7)
    assert len(tuned.losses) == 7
    moved = max(
        float((a - b).detach().abs().max()) for a, b in zip(tuned.delta.parameters(), start.parameters(), strict=True)
    )
    assert 0 < moved < 7 * 1.01e-4  # a step of AdamW is at most the rate


def test_evidence_is_that_of_the_best_precisions() -> None:
    from scipy.optimize import minimize
    from scipy.stats import multivariate_normal

    g = torch.Generator().manual_seed(0)
    for n, d in ((12, 4), (6, 9)):
        x = torch.randn(n, d, generator=g, dtype=torch.float64)
        y = x @ torch.randn(d, 1, generator=g, dtype=torch.float64) + torch.randn(n, 1, generator=g).double()

        def minus(t: np.ndarray, x: Tensor = x, y: Tensor = y, n: int = n) -> float:
            covariance = np.eye(n) / np.exp(t[1]) + (x @ x.mT).numpy() / np.exp(t[0])
            return -float(multivariate_normal(np.zeros(n), covariance).logpdf(y[:, 0].numpy())) / n

        best = min(minimize(minus, np.array([a, b]), method="Nelder-Mead").fun for a in (-1, 1) for b in (-1, 1, 3))
        assert logme(x, y, 5000) == pytest.approx(-best, abs=0.01)


@pytest.mark.parametrize("full", [False, True])
def test_a_source_keeps_its_best_epoch(bert: nn.Module, full: bool) -> None:
    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bert = bert

        def forward(self, ids: Tensor) -> Tensor:
            return self.bert(ids).last_hidden_state.mean(1)  # type: ignore[no-any-return]

    model, ids = Pooled().eval(), torch.randint(0, 60, (48, 5), generator=torch.Generator().manual_seed(0))
    data, dev = (Data(some, some[:, 0] % 2) for some in (ids[:40], ids[40:]))
    seen: list[float] = []

    def judged(tuned: Any, some: Data) -> float:
        assert some is dev
        seen.append(accuracy(tuned, some))
        return seen[-1]

    source = train_source("parity", model, data, dev, full=full, score=judged, kind="toy")
    assert len(seen) == (3 if full else 15) and (source.name, source.kind) == ("parity", "toy")
    change = {type(holder.change).__name__ for holder in source.learnt().each()}
    assert change == ({"Own"} if full else {"Adapter"})
    assert source.readout is not None
    kept = Tuned(model, source.learnt(), source.readout, data.classes)
    assert accuracy(kept, dev) == max(seen)


def test_transfer_is_the_mean_over_restarts() -> None:
    model, sources, few, others, best = planted(3)
    recipe = Recipe(RECIPE.changes, stages=(Stage(steps=10, lr=0.01, batch=20),), readout=Linear)
    found = transfer(model, sources, few, others, recipe, restarts=2)
    assert ranked(found.scores)[0].name == best
    by_hand = [accuracy(tune(model, few, recipe, seed=seed), others) for seed in range(2)]
    assert found.scratch == pytest.approx(sum(by_hand) / 2)
    assert found.gains()[best] == pytest.approx(found.scores[best] / found.scratch - 1) and found.gains()[best] > 0
    with pytest.raises(BadInput, match="need one above 0"):
        Transfer(0.0, {"a": 1.0}).gains()


def test_rankings_are_joined_and_sorted_by_kind() -> None:
    one, other = {"a": 3.0, "b": 2.0, "c": 1.0}, {"a": 1.0, "b": 3.0, "c": 2.0}
    scores = fused([one, other])
    assert scores == pytest.approx({"a": 1 / 61 + 1 / 63, "b": 1 / 62 + 1 / 61, "c": 1 / 63 + 1 / 62})
    assert [found.name for found in ranked(scores)] == ["b", "a", "c"]
    data = Data(torch.zeros(3, 1), torch.tensor([0, 1, 0]))
    sources = [
        Source("a", data, kind="qa"),
        Source("b", data),
        Source("c", data.__class__(torch.zeros(2, 1), torch.tensor([0, 1])), kind="qa"),
    ]
    assert [found.name for found in of_kind_first(scores, sources, "qa")] == ["a", "c", "b"]
    assert by_size(sources) == {"a": 3.0, "b": 3.0, "c": 2.0}
    assert by_chance(sources, 1) == by_chance(sources, 1) != by_chance(sources, 2)


def test_what_makes_no_sense_is_refused() -> None:
    data = Data(torch.ones(4, 8), torch.tensor([0, 1, 0, 1]))
    plain, model = Source("a", data), net()
    learnt = Source("b", data, Delta.begin(model, RECIPE.changes, torch.Generator()))
    two: dict[str, Any] = {"a": 0.5, "b": 0.7}
    cases: list[tuple[Callable[[], object], str]] = [
        (lambda: by_size([]), "no source"),
        (lambda: by_size([plain, plain]), "two sources are called 'a'"),
        (lambda: by_few_shots(model, [plain], data, data), "source 'a' has nothing learnt"),
        (lambda: by_task_embedding(model, [learnt], learnt), "'b' has no readout"),
        (lambda: by_task_embedding(model, [plain], plain), "'a' has no readout"),
        (lambda: by_proxy(model, [learnt], data, "svm"), "'knn', 'linear' or 'logme'"),  # type: ignore[arg-type]
        (lambda: by_proxy(model, [learnt], Data(data.inputs[:2], data.targets[:2])), "four examples"),
        (lambda: by_vector([plain], data, lambda d: torch.zeros(3)), "zero vector"),
        (lambda: few_steps(model, learnt.learnt(), data, steps=0), "steps is 0"),
        (lambda: regret(two, ["a"]), "source 'b' is in the ranking or in the scores only"),
        (lambda: regret(two, ["a", "b"], 3), "k is 3; there are 2"),
        (lambda: regret(two, ["a", "b", "a"]), "names every source once"),
        (lambda: regret({"a": float("nan"), "b": 1.0}, ["a", "b"]), "no number"),
        (lambda: ndcg({"a": 0.5, "b": 70.0}, ["a", "b"]), "'b' has 70: scale them"),
        (lambda: ndcg({"a": 0.0, "b": 0.0}, ["a", "b"]), "all scores are 0"),
        (lambda: fused([]), "0 rankings, 60"),
        (lambda: fused([two], -1.0), "a constant not below 0"),
        (lambda: of_kind_first({"a": 1.0, "c": 2.0}, [plain, learnt], "qa"), "'c' is ranked, but is none"),
        (lambda: relative({"a": float("nan"), "b": 1.0}), "all numbers"),
        (lambda: relative({}), "one at least"),
        (lambda: TaskEmb(batch=0), "one example at least, not 0"),
        (lambda: fused([two, {"a": 1.0}]), "different sources"),
        (lambda: transfer(model, [learnt], data, data, RECIPE, restarts=0), "restarts is 0"),
        (lambda: TaskEmb(layers=("x",)).of(model, Linear(), data), "no layer 'x'"),
        (lambda: TaskEmb(parameters=False, layers=()).of(model, Linear(), data), "no parameter and no layer"),
        (lambda: alike({"x": torch.ones(2)}, {"x": torch.ones(3)}), "no component in common"),
        (lambda: alike({"x": torch.ones(2)}, {"x": torch.zeros(2)}), "component x is 0"),
    ]
    for bad, match in cases:
        with pytest.raises(BadInput, match=match):
            bad()
