"""A zoo of adapters: learnt on other classes, chosen by a few examples, certified."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import beta
from torch import Tensor, nn

from handful.errors import BadInput
from handful.tune import Data, Placed, tune
from handful.tune.lora_sb import BRA
from handful.tune.prompts import PromptTexts
from handful.tune.recipe import Recipe, Stage
from handful.tune.sites import Where
from handful.tune.steel import AdapterZoo, CertifiedSelector, NamedTexts, lora_xs, prompts
from handful.tune.tuned import Tuned

PART = "zoo"
HOW: dict[str, Any] = {"where": Where((), sites=("map",)), "steps": 40, "lr": 0.05, "scale": 10.0}


class Small(nn.Module):
    """A map ``[n, 8]`` to ``[n, 8]`` that changes next to nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(8, 8, bias=False)
        with torch.no_grad():
            self.map.weight.copy_(torch.diag(torch.linspace(1.1, 0.9, 8)))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.map(x)
        return out


def task(seed: int, ways: int = 4, shots: int = 10) -> Data:
    """Classes of its own: what texts mean stands in their first half, in the second is noise, as in items."""
    draw = torch.Generator().manual_seed(seed)
    texts = torch.randn(ways, 8, generator=draw)
    labels = torch.arange(ways).repeat_interleave(shots)
    noise = torch.randn(len(labels), 8, generator=draw) * torch.tensor([0.3] * 4 + [2.0] * 4)
    meant = texts * torch.tensor([1.0] * 4 + [0.0] * 4)
    return Data(meant[labels] + noise, labels, tuple(f"c{seed}-{c}" for c in range(ways)), documents=texts)


@pytest.fixture(scope="module")
def zoo() -> AdapterZoo:
    return AdapterZoo.learnt(Small().eval(), [task(s) for s in range(6)], lora_xs(**HOW))


def right(chosen: CertifiedSelector, data: Data) -> float:
    return float(np.mean([a == data.classes[c] for a, c in zip(chosen.predict(data.inputs), data.labels, strict=True)]))


def test_adapters_begin_alike_and_learn_from_their_own_task(zoo: AdapterZoo) -> None:
    assert zoo.vectors.shape == (6, 64)
    start = AdapterZoo.learnt(zoo.model, [task(0), task(1, ways=6)], lora_xs(**{**HOW, "steps": 0}))
    assert torch.equal(start.vectors[0], start.vectors[1])  # whatever the classes
    distance = torch.cdist(zoo.vectors, zoo.vectors) + 1e9 * torch.eye(6)
    assert distance.min() > 1e-2 and (zoo.vectors - start.vectors[0]).norm(dim=1).min() > 0.1
    alone = tune(zoo.model, task(4), lora_xs(**HOW), seed=0)
    for holder in alone.delta.each():
        assert torch.equal(holder.tensors["R"].flatten(), zoo.vectors[4])


def test_an_adapter_of_other_classes_answers_for_new_ones(zoo: AdapterZoo) -> None:
    data, test = task(50, shots=6), task(50, shots=200)
    chosen = CertifiedSelector(zoo).fit(data)
    base = zoo.start(data)  # the start is as good as no adapter
    plain = float((base.logits(test.inputs).argmax(1) == test.labels).float().mean())
    assert right(chosen, test) > plain + 0.2
    errors = [int((zoo.put(zoo.start(data), m).logits(data.inputs).argmax(1) != data.labels).sum()) for m in range(6)]
    assert chosen.errors == min(errors) == errors[chosen.index]
    assert torch.equal(zoo.model.map.weight, Small().map.weight)


@pytest.mark.paper(5, oracle="a", part=PART)
def test_one_adapter_without_errors(zoo: AdapterZoo) -> None:
    data = task(50)
    single = AdapterZoo(zoo.model, zoo.recipe, zoo.vectors[:1])
    easy = Data(data.documents, torch.arange(4), data.classes, documents=data.documents)  # items that are the texts
    chosen = CertifiedSelector(single, delta=0.1, hypotheses_independent=True).fit(easy)
    assert chosen.errors == 0
    assert chosen.certificate_.risk == pytest.approx(1 - 0.1 ** (1 / 4), abs=1e-9)


@pytest.mark.paper(5, oracle="d", part=PART)
@pytest.mark.parametrize("search", ["all", "clusters"])
def test_the_certificate_is_clopper_and_pearsons_for_the_whole_zoo(zoo: AdapterZoo, search: Any) -> None:
    many = AdapterZoo(zoo.model, zoo.recipe, zoo.vectors.repeat(5, 1) + 0.01 * torch.randn(30, 64))
    data = task(50)
    chosen = CertifiedSelector(many, search=search, top_clusters=2, hypotheses_independent=True).fit(data)
    k, n = chosen.errors, len(data)
    assert chosen.certificate_.hypotheses == 30 and 0 < k < n
    assert chosen.certificate_.risk == pytest.approx(beta.ppf(1 - 0.05 / 30, k + 1, n - k), abs=1e-9)
    assert chosen.certificate_.balanced


@pytest.mark.paper(5, oracle="c", part=PART)
def test_the_bound_holds_as_often_as_it_says() -> None:
    """200 random adapters whose errors on a large population are known; 30 examples choose, many times over."""
    draw = torch.Generator().manual_seed(0)
    population = task(3, ways=3, shots=2000)
    random = AdapterZoo(Small().eval(), lora_xs(**HOW), 0.7 * torch.randn(200, 64, generator=draw))
    logits = random.logits(population, range(200))
    risk = (logits.argmax(-1) != population.labels).float().mean(1)

    class Known(AdapterZoo):
        """Items are numbers in the population."""

        def logits(self, data: Data, indices: Sequence[int] | Tensor) -> Tensor:
            return logits[torch.as_tensor(indices)][:, torch.as_tensor(data.inputs).long()]

        def start(self, data: Data) -> Tuned:
            return random.start(population)

    known, failed, trials, delta = Known(random.model, random.recipe, random.vectors), 0, 1000, 0.3
    selector = CertifiedSelector(known, delta=delta, hypotheses_independent=True)
    for _ in range(trials):
        rows = torch.randint(len(population), (30,), generator=draw)
        selector.fit(Data(rows, population.labels[rows], population.classes))
        failed += bool(risk[selector.index] > selector.certificate_.risk)
    assert failed / trials <= delta + 3 * (delta * (1 - delta) / trials) ** 0.5
    assert selector.certificate_.risk < 1


def test_an_adapter_put_back_answers_as_it_did() -> None:
    """On bases that were drawn too: the start is that of the training, by its seed."""
    changes = (Placed(BRA(4, basis="random"), HOW["where"]),)
    recipe = Recipe(changes, stages=(Stage(steps=20, lr=0.1),), readout=NamedTexts)
    model, data, other = Small().eval(), task(1), task(50)
    learnt = tune(model, data, recipe, seed=3)
    again = AdapterZoo.learnt(model, [data], recipe, seed=3)
    put = again.put(again.start(data), 0)
    assert torch.equal(put.logits(data.inputs), learnt.logits(data.inputs))
    assert torch.equal(again.logits(data, [0])[0], learnt.logits(data.inputs))
    assert again.start(other).classes == other.classes


def test_clusters_look_at_fewer(zoo: AdapterZoo, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = torch.Generator().manual_seed(1)
    many = AdapterZoo(zoo.model, zoo.recipe, zoo.vectors.repeat(10, 1) + 0.01 * torch.randn(60, 64, generator=draw))
    looked: list[int] = []
    whole = AdapterZoo.logits

    def counted(self: AdapterZoo, data: Data, indices: Any) -> Tensor:
        looked.append(len(indices))
        return whole(self, data, indices)

    monkeypatch.setattr(AdapterZoo, "logits", counted)
    data = task(50)
    few = CertifiedSelector(many, search="clusters", top_clusters=1).fit(data)
    assert sum(looked) < 40
    every = CertifiedSelector(many).fit(data)
    assert every.errors <= few.errors <= every.errors + 6


def test_without_what_it_assumes_there_is_no_certificate(zoo: AdapterZoo) -> None:
    with pytest.raises(BadInput, match="no certificate: nothing was chosen yet"):
        _ = CertifiedSelector(zoo).certificate_
    said = CertifiedSelector(zoo, hypotheses_independent=True)
    data = task(50)
    for selector, given, why in (
        (CertifiedSelector(zoo), data, "say hypotheses_independent=True"),
        (said, task(2), "the zoo learnt from 40 of these examples"),
        (said, Data(data.inputs, data.labels, data.classes, torch.linspace(1, 2, 40), data.documents), "weight"),
    ):
        with pytest.raises(BadInput, match=f"no certificate: .*{why}"):
            _ = selector.fit(given).certificate_


def test_prompts_of_a_clip_are_adapters_too(towers: Any, scenes: Any) -> None:
    pixels, labels, names = scenes
    other = Data(pixels, labels, ("old bridge", "dark desert", "bright park"))
    tasks = [other, Data(pixels, (labels + 1) % 3, other.classes)]
    made = AdapterZoo.learnt(towers, tasks, prompts("photo of {}.", steps=3))
    assert made.vectors.shape == (2, 2 * 16)
    data = Data(pixels, labels, names)
    chosen = CertifiedSelector(made).fit(data)
    readout = PromptTexts("photo of {}.")
    readout.begin(towers, data, torch.Generator())
    with torch.no_grad():
        readout.context.copy_(made.vectors[chosen.index].reshape(2, 16))
        want = readout(towers(pixels), towers)
    torch.testing.assert_close(chosen.logits(pixels), want, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(made.logits(data, [chosen.index])[0], want, atol=1e-4, rtol=1e-4)


def test_what_makes_no_sense_is_refused(zoo: AdapterZoo, towers: Any, scenes: Any) -> None:
    model, recipe, data = zoo.model, zoo.recipe, task(50)
    bad: Any
    flat, none, unknown = torch.zeros(3), torch.zeros(0, 4), torch.tensor([[torch.nan]])
    for vectors, why in ((flat, r"\[M, p\]"), (none, r"\[M, p\]"), (unknown, "finite")):
        with pytest.raises(BadInput, match=why):
            AdapterZoo(model, recipe, vectors)
    with pytest.raises(BadInput, match="vectors of 5 numbers, its recipe makes 64"):
        CertifiedSelector(AdapterZoo(model, recipe, torch.zeros(2, 5))).fit(data)
    with pytest.raises(BadInput, match="there are none"):
        AdapterZoo.learnt(model, [], recipe)
    with pytest.raises(BadInput, match="no readout"):
        AdapterZoo.learnt(model, [data], Recipe(stages=(Stage(steps=1),)))
    with pytest.raises(BadInput, match="documents, one a class"):
        AdapterZoo.learnt(model, [Data(data.inputs, data.labels)], recipe)
    pixels, labels, names = scenes
    per_class = Recipe(stages=(Stage(steps=0),), readout=lambda: PromptTexts(per_class=True))
    two = Data(pixels, labels % 2, names[:2])
    with pytest.raises(BadInput, match="must not depend on how many classes"):
        AdapterZoo.learnt(towers, [two, Data(pixels, labels, names)], per_class)
    with pytest.raises(BadInput, match="each item one label"):
        CertifiedSelector(zoo).fit(Data(data.inputs, torch.full((40, 4), 0.25), data.classes, documents=data.documents))
    for bad in ({"delta": 0.0}, {"delta": 1.0}, {"bound": "hope"}, {"search": "some"}, {"top_clusters": 0}):
        with pytest.raises(BadInput, match=next(iter(bad))):
            CertifiedSelector(zoo, **bad)
    with pytest.raises(BadInput, match="call fit first"):
        CertifiedSelector(zoo).predict(data.inputs)
