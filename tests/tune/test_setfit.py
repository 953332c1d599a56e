"""SetFit (167): its pairs, its loss, and what it does to an encoder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from handful.errors import BadInput
from handful.tune import AsIs, Data, contrastive, tune
from handful.tune.contrastive import AllPairs, CosinePairs, supcon
from handful.tune.plain import APART
from handful.tune.recipe import Seen, Stage
from handful.tune.recipes import recipe
from handful.tune.samplers import ByClass
from handful.tune.setfit import Pairs, SetFit, TwoOfEach, make_pairs


def one_hot(*labels: int) -> Tensor:
    return nn.functional.one_hot(torch.tensor(labels)).float()


def counts(targets: Tensor, **options: object) -> tuple[int, int]:
    positive, negative = make_pairs(targets, **options)  # type: ignore[arg-type]
    return len(positive), len(negative)


@pytest.mark.paper(167, oracle="a")
def test_pairs_are_as_many_as_the_authors_tests_say() -> None:
    targets = one_hot(1, 1, 2)
    assert counts(targets, strategy="unique") == (4, 2)
    assert counts(targets, strategy="undersampling") == (2, 2)
    assert counts(targets, strategy="oversampling") == (4, 4)
    several = torch.tensor([[1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 0, 1]])  # two pairs share a label
    assert counts(several, strategy="unique") == (6, 4)
    assert counts(several, strategy="undersampling") == (4, 4)
    assert counts(several, strategy="oversampling") == (6, 6)


@pytest.mark.paper(167, oracle="b")
def test_without_an_item_and_itself_the_pairs_are_those_of_the_guide() -> None:
    targets = one_hot(*[0] * 8, *[1] * 4, *[2] * 8)
    assert counts(targets, strategy="unique", itself=False) == (62, 128)
    assert sum(counts(targets, itself=False)) == 256


def test_iterations_are_pairs_of_each_kind_for_each_item() -> None:
    assert counts(one_hot(0, 0, 1, 1, 2), iterations=7) == (35, 35)
    positive, _ = make_pairs(one_hot(0, 0, 1, 1), iterations=3, itself=False)
    assert positive.unique(dim=0).tolist() == [[0, 1], [2, 3]]  # in turn, again and again


def test_of_many_pairs_half_of_the_most_are_of_each_kind() -> None:
    targets = one_hot(*[c for c in range(25) for _ in range(4)])  # 250 alike, 4,800 not
    assert counts(targets, strategy="unique", most=200) == (100, 100)
    assert counts(targets, strategy="unique", most=1000) == (250, 500)
    assert counts(one_hot(*[0, 1] * 1001), most=60) == (30, 30)
    positive, _ = make_pairs(targets, most=200, strategy="unique")
    whole, _ = make_pairs(targets, strategy="unique")
    assert torch.equal(positive, whole[:100]) and recipe("setfit:most=200").sampler == Pairs(most=200)


def test_pairs_are_right_and_each_there_once() -> None:
    y = torch.tensor([0, 1, 0, 2, 1, 0])
    positive, negative = make_pairs(nn.functional.one_hot(y), strategy="unique")
    assert (y[positive[:, 0]] == y[positive[:, 1]]).all() and (y[negative[:, 0]] != y[negative[:, 1]]).all()
    every = torch.cat([positive, negative])
    assert len(every.unique(dim=0)) == len(every) == 21 and (every[:, 0] <= every[:, 1]).all()
    again = make_pairs(nn.functional.one_hot(y), strategy="unique")
    assert torch.equal(again[0], positive)
    other = make_pairs(nn.functional.one_hot(y), strategy="unique", seed=7)
    assert not torch.equal(other[0], positive)


def test_steps_hold_positive_and_negative_pairs_by_turns() -> None:
    data = Data(torch.randn(6, 2), torch.tensor([0, 0, 0, 1, 1, 1]))
    sampler = Pairs(itself=False)
    pairs = sampler.pairs(data)
    alike = data.labels[pairs[:, 0]] == data.labels[pairs[:, 1]]
    assert alike.tolist() == [True, False] * 9
    assert sampler.steps(data, 1, 4) == 5
    draws = sampler.draws(data, 4, torch.Generator().manual_seed(0))
    rows = torch.cat([next(draws) for _ in range(5)]).view(-1, 2)
    assert sorted(rows.tolist()) == sorted(pairs.tolist())


@pytest.mark.parametrize(
    ("labels", "options", "complaint"),
    [
        ([0, 0, 0], {}, "one class only"),
        ([0, 1], {"itself": False}, "no two items share a class"),
        ([0, 1], {"strategy": "over"}, "no strategy 'over'"),
        ([0, 1] * 1001, {}, "2,002 items make 2,005,003 pairs; say how many are enough"),
        ([0, 1], {"iterations": 0}, "1 at least, not 0"),
        ([0, 1], {"iterations": -3}, "1 at least, not -3"),
        ([0, 1], {"iterations": 2.5}, "1 at least, not 2.5"),
        ([0, 1], {"most": 1}, "2 at least or -1 for all, not 1"),
    ],
)
def test_what_makes_no_pairs_is_refused(labels: list[int], options: dict[str, object], complaint: str) -> None:
    with pytest.raises(BadInput, match=complaint):
        make_pairs(one_hot(*labels), **options)  # type: ignore[arg-type]


def seen(features: Tensor, targets: Tensor) -> Seen:
    n = len(features)
    found = Seen(nn.Identity(), AsIs(), torch.arange(n), features, targets, torch.ones(n), 0, 1, torch.Generator())
    assert torch.equal(found.features, features)
    return found


@pytest.mark.paper(167, oracle="e")
def test_an_item_and_itself_cost_nothing() -> None:
    x = torch.randn(1, 5).expand(2, 5)
    assert float(CosinePairs()(seen(x, one_hot(0, 0)))) == pytest.approx(0, abs=1e-12)
    assert float(CosinePairs()(seen(torch.eye(2), one_hot(0, 1)))) == 0
    assert float(CosinePairs()(seen(torch.eye(2), one_hot(0, 0)))) == 1
    assert float(CosinePairs()(seen(x, one_hot(0, 1)))) == pytest.approx(1)


def test_all_pairs_are_the_mean_of_the_pairs_of_each_kind() -> None:
    x, y = torch.randn(5, 3), torch.tensor([0, 0, 1, 1, 1])
    by_kind: dict[bool, list[float]] = {True: [], False: []}
    for i in range(5):
        for j in range(i + 1, 5):
            same = bool(y[i] == y[j])
            cosine = float(nn.functional.cosine_similarity(x[i], x[j], dim=0))
            by_kind[same].append((cosine - same) ** 2)
    targets = nn.functional.one_hot(y).float()
    assert float(AllPairs()(seen(x, targets))) == pytest.approx(np.mean([np.mean(v) for v in by_kind.values()]))
    every = [*by_kind[True], *by_kind[False]]
    assert float(AllPairs(balanced=False)(seen(x, targets))) == pytest.approx(np.mean(every))


@pytest.mark.paper(167, oracle="d")
def test_supcon_is_the_authors() -> None:
    golden = json.loads((Path(__file__).parents[1] / "golden" / "setfit_supcon.json").read_text(encoding="utf-8"))
    y = torch.tensor([0, 0, 1, 1, 1, 2, 2])
    for case in golden["cases"]:
        x = torch.randn(7, 5, generator=torch.Generator().manual_seed(case["seed"]))
        f = nn.functional.normalize(x, dim=1)
        found = supcon(f @ f.mT, y[:, None] == y[None], case["temperature"])
        assert float(found) == pytest.approx(case["loss"], rel=1e-5)


def test_supcon_is_its_formula() -> None:
    g = torch.Generator().manual_seed(0)
    x = nn.functional.normalize(torch.randn(6, 4, generator=g), dim=1)
    y = torch.tensor([0, 0, 1, 1, 1, 2])  # the last has no other of its class
    total = []
    for i in range(6):
        others = [j for j in range(6) if j != i]
        norm = sum(float(torch.exp(x[i] @ x[j] / 0.07)) for j in others)
        positive = [float(torch.log(torch.exp(x[i] @ x[p] / 0.07) / norm)) for p in others if y[p] == y[i]]
        total += [-np.mean(positive)] if positive else []
    found = supcon(x @ x.mT, y[:, None] == y[None], 0.07)
    assert float(found) == pytest.approx(np.mean(total), rel=1e-5)


@pytest.mark.paper(167, oracle="d")
@pytest.mark.parametrize("margin", [0.25, 1.0])
def test_triplets_are_their_loop(margin: float) -> None:
    x, y = torch.randn(7, 3, generator=torch.Generator().manual_seed(2)), torch.tensor([0, 0, 1, 1, 1, 2, 0])
    d = 1 - nn.functional.cosine_similarity(x[:, None], x[None], dim=2)
    found = [
        float(d[a, p] - d[a, n] + margin)
        for a in range(7) for p in range(7) for n in range(7) if a != p and y[a] == y[p] and y[a] != y[n]
    ]  # fmt: skip
    above = [one for one in found if one > 0]
    assert len(above) > 0 and (margin == 1.0 or len(above) < len(found))
    targets = nn.functional.one_hot(y).float()
    assert float(contrastive.Triplets(margin)(seen(x, targets))) == pytest.approx(sum(above) / len(above), rel=1e-5)
    assert float(contrastive.Triplets()(seen(x, one_hot(*[0] * 7)))) == 0
    assert (
        float(contrastive.SupCon()(seen(x[:3], one_hot(0, 1, 2)))) == 0
    )  # no two of a class: nothing to say, and no NaN


class Words(nn.Module):
    """The mean of word vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(20, 6)
        self.fc1 = nn.Linear(6, 6)
        for n, p in enumerate(self.parameters()):
            p.data = torch.randn(p.shape, generator=torch.Generator().manual_seed(n))

    def forward(self, sentences: list[list[int]]) -> Tensor:
        return torch.stack([self.fc1(self.embed_tokens(torch.tensor(s)).mean(0)) for s in sentences])


@pytest.fixture
def sentences() -> Data:
    g = torch.Generator().manual_seed(3)
    labels = [0, 1] * 6
    return Data([[c, *torch.randint(2, 20, (3,), generator=g).tolist()] for c in labels], torch.tensor(labels))


@pytest.mark.paper(167, oracle="c")
def test_no_steps_leave_the_encoder_as_it_was(sentences: Data) -> None:
    model = Words().eval()
    before = model(sentences.inputs)
    tuned = tune(model, sentences, SetFit(epochs=0).recipe())
    with tuned.delta.attached(model):
        assert torch.equal(model(sentences.inputs), before)


@pytest.mark.paper(167, oracle="f")
def test_the_same_seed_gives_the_same_encoder(sentences: Data) -> None:
    model = Words().eval()
    made = [tune(model, sentences, SetFit(lr=1e-2, epochs=6).recipe(), seed=seed) for seed in (1, 1, 2)]
    states = [torch.cat([p.flatten() for p in one.delta.parameters()]) for one in made]
    assert torch.equal(states[0], states[1]) and not torch.equal(states[0], states[2])
    assert np.mean(made[0].losses[-4:]) < 0.8 * np.mean(made[0].losses[:4])


def test_defaults_are_those_of_the_paper() -> None:
    made = SetFit().recipe()
    stage = made.stages[0]
    assert (stage.lr, stage.batch, stage.epochs, stage.warmup, stage.weight_decay) == (2e-5, 16, 1, 0.1, 0.01)
    assert stage.rate == "linear" and stage.trains == ("delta",) and stage.clip == 1.0
    assert made.sampler == Pairs("oversampling") and made.objectives == (CosinePairs(),)
    assert recipe("setfit", iterations=20).sampler == Pairs(iterations=20)


@pytest.mark.parametrize("loss", ["supcon", "triplet"])
def test_other_losses_draw_classes_together(sentences: Data, loss: str) -> None:
    made = recipe("setfit", loss=loss, lr=3e-2, epochs=20)
    assert made.sampler == TwoOfEach() and made.stages[0].batch == 16
    model = Words().eval()
    tuned = tune(model, sentences, made)
    assert tuned.losses[-1] < 0.7 * tuned.losses[0]
    for labels, complaint in ((torch.zeros(12).long(), "one class only"), (torch.arange(12), "no two items share")):
        with pytest.raises(BadInput, match=complaint):
            tune(model, Data(sentences.inputs, labels), made)
    with pytest.raises(BadInput, match="loss is one of cosine, supcon, triplet, not 'mse'"):
        recipe("setfit", loss="mse")


def test_batches_by_class_hold_two_of_each() -> None:
    labels = torch.tensor([0] * 50 + [1] * 3 + [2] * 20 + [3])
    data = Data(torch.zeros(len(labels), 1), labels)
    draws = ByClass(4).draws(data, 16, torch.Generator().manual_seed(0))
    seen_rows: set[int] = set()
    for _ in range(60):
        rows = next(draws)
        counts = torch.bincount(labels[rows], minlength=4)
        assert counts[:3].tolist() == [4, 3, 4] and counts[3] == 1
        assert len(rows.unique()) == len(rows)
        seen_rows |= set(rows.tolist())
    assert seen_rows == set(range(len(labels)))
    small = Data(torch.zeros(5, 1), labels[48:53])
    assert next(ByClass().draws(small, 16, torch.Generator())).tolist() == [0, 1, 2, 3, 4]


def test_contrast_draws_classes_together() -> None:
    model, g = Words().eval(), torch.Generator().manual_seed(0)
    labels = torch.arange(12) % 3
    data = Data([[int(c), *torch.randint(3, 20, (2,), generator=g).tolist()] for c in labels], labels)
    with torch.no_grad():
        loss = [AllPairs()(seen(model(data.inputs), data.targets))]
        tuned = tune(model, data, recipe("full", lr=3e-2, steps=40))
        with tuned.delta.attached(model):
            loss.append(AllPairs()(seen(model(data.inputs), data.targets)))
    assert loss[1] < 0.3 * loss[0]
    assert isinstance(recipe("full").stages[0], Stage)


def test_contrast_goes_on_only_where_classes_are_not_told_apart() -> None:
    model, g = Words().eval(), torch.Generator().manual_seed(0)
    labels = torch.arange(12) % 3
    told = Data([[int(c), *torch.randint(3, 20, (2,), generator=g).tolist()] for c in labels], labels)
    same = Data([[5, 6, 7]] * 12, labels)
    how = {"lr": 3e-2, "steps": 30}
    once, twice = (tune(model, data, recipe("full", **how)).losses for data in (told, same))
    assert len(once) == 30 and np.mean(once[-4:]) <= APART
    assert len(twice) == 60 and np.mean(twice[26:30]) > APART
