"""FastFit (102): late interaction with class texts, in training and in the model that ships."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from handful.core.adafactor import Adafactor
from handful.core.late_interaction import Tokens, token_similarity
from handful.encode.bert_tower import BertTower
from handful.encode.reading import LateInteraction, reading_of
from handful.errors import BadInput
from handful.tune import AsIs, Data, tune
from handful.tune.contrastive import supcon
from handful.tune.late import FastFit, Late, LateClasses, LateContrast, Repeated, matrix
from handful.tune.recipe import Seen
from handful.tune.recipes import recipe

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "fastfit.json").read_text(encoding="utf-8"))


def tokens(lengths: list[int], seed: int = 0, width: int = 4) -> Tokens:
    """Unit vectors; what is padding is not zero."""
    g = torch.Generator().manual_seed(seed)
    states = functional.normalize(torch.randn(len(lengths), max(lengths), width, generator=g), dim=2)
    return Tokens(states, (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).float())


def golden(seed: int) -> tuple[Tokens, Tokens, Tensor]:
    g = torch.Generator().manual_seed(seed)
    q, d = (functional.normalize(torch.randn(6, n, 4, generator=g), dim=2) for n in (5, 3))
    masks = [
        (torch.arange(max(n)) < torch.tensor(n)[:, None]).float() for n in ([5, 3, 1, 4, 2, 5], [1, 2, 3, 3, 2, 1])
    ]
    return Tokens(q, masks[0]), Tokens(d, masks[1]), torch.tensor([0, 1, 2, 0, 1, 0])


@pytest.mark.paper(102, oracle="a")
@pytest.mark.parametrize("by_length", [True, False])
def test_token_similarity_is_its_loop(by_length: bool) -> None:
    a, b = tokens([3, 1, 4]), tokens([2, 5], seed=1)
    want = np.zeros((2, 3))
    for i in range(2):
        for j in range(3):
            floor = 0.0 if a.mask[j].min() == 0 else -np.inf  # a padded partner has something to offer: nothing
            for t in range(int(b.mask[i].sum())):
                some = [float(b.states[i, t] @ a.states[j, u]) for u in range(int(a.mask[j].sum()))]
                want[i, j] += max([*some, floor])
            if by_length:
                want[i, j] /= int(b.mask[i].sum())
    np.testing.assert_allclose(token_similarity(a, b, by_length=by_length), want, atol=1e-6)
    one = Tokens(a.states[:1, :1], torch.ones(1, 1))
    assert float(token_similarity(one, one)) == pytest.approx(1, abs=1e-6)


@pytest.mark.paper(102, oracle="c")
@pytest.mark.parametrize("case", GOLDEN["cases"], ids=str)
def test_the_matrix_is_the_authors(case: dict[str, object]) -> None:
    q, d, _ = golden(case["seed"])  # type: ignore[arg-type]
    torch.testing.assert_close(matrix(q, d), torch.tensor(case["matrix"]), atol=1e-6, rtol=0)
    torch.testing.assert_close(token_similarity(d, q, by_length=False), torch.tensor(case["scores"]), atol=2e-6, rtol=0)


@pytest.mark.paper(102, oracle="b")
@pytest.mark.parametrize("case", GOLDEN["cases"], ids=str)
def test_the_loss_of_the_matrix_is_the_authors(case: dict[str, float]) -> None:
    q, d, y = golden(int(case["seed"]))
    twice = y.repeat(2)
    alike = twice[:, None] == twice
    assert float(supcon(matrix(q, d), alike, 0.07)) == pytest.approx(case["loss"], rel=1e-4)
    assert float(supcon(matrix(q, d), alike, 0.5)) == pytest.approx(case["loss_half"], rel=1e-5)


@pytest.mark.parametrize("shape", [(5, 7), (7,)])
def test_adafactor_is_that_of_transformers(shape: tuple[int, ...]) -> None:
    from transformers.optimization import Adafactor as Theirs

    g = torch.Generator().manual_seed(0)
    start, slopes = torch.randn(shape, generator=g), [torch.randn(shape, generator=g) * 3**n for n in range(5)]
    theirs = nn.Parameter(start.clone())
    optimiser = Theirs([theirs], lr=0.1, relative_step=False, scale_parameter=False, weight_decay=0.01)
    mine, update = start.clone(), Adafactor(weight_decay=0.01, relative=False)
    for n, slope in enumerate(slopes):
        if n == 3:  # broken off and gone on with
            kept = [t.clone() for t in update.memory()]
            update = Adafactor(weight_decay=0.01, relative=False)
            update.recall(kept)
        theirs.grad = slope.clone()
        optimiser.step()
        update([mine], (slope,), 0.1)
        torch.testing.assert_close(mine, theirs.data, atol=2e-6, rtol=1e-6)


@pytest.fixture
def tower(bert: nn.Module) -> BertTower:
    return BertTower({name: t for name, t in bert.state_dict().items() if not name.startswith("pooler")}, 2).eval()


@pytest.fixture
def data() -> Data:
    g = torch.Generator().manual_seed(1)
    labels = torch.arange(12) % 3
    texts = [[1, 10 + int(c), *torch.randint(20, 60, (2 + n % 3,), generator=g).tolist()] for n, c in enumerate(labels)]
    return Data(texts, labels, ("a", "b", "c"), documents=[[1, 5, 2], [1, 6, 7, 2], [1, 8, 2]])


def test_tokens_of_a_tower_are_those_of_bert(bert: nn.Module, tower: BertTower, data: Data) -> None:
    found = tower.tokens(data.inputs)
    for text, states, mask in zip(data.inputs, found.states, found.mask, strict=True):
        with torch.no_grad():
            want = bert(torch.tensor([text])).last_hidden_state[0]
        assert mask.sum() == len(text) and mask[: len(text)].all()
        torch.testing.assert_close(states[: len(text)], want, atol=1e-5, rtol=1e-5)
    mean = (found.states * found.mask[..., None]).sum(1)
    torch.testing.assert_close(functional.normalize(mean, dim=1), tower(data.inputs))


def seen(tower: BertTower, data: Data, readout: Late, rows: Tensor) -> Seen:
    some = [data.inputs[i] for i in rows.tolist()]
    return Seen(tower, readout, rows, some, data.targets[rows], torch.ones(len(rows)), 0, 1, torch.Generator())


def begun(tower: BertTower, data: Data, **options: object) -> Late:
    late = Late(8, **options)  # type: ignore[arg-type]
    late.begin(tower, data, torch.Generator().manual_seed(0))
    return late.eval()


@pytest.mark.paper(102, oracle="d")
@pytest.mark.parametrize("direction", ["doc", "query", "both"])
def test_scores_follow_the_classes_and_no_text_its_neighbours(tower: BertTower, data: Data, direction: str) -> None:
    late = begun(tower, data, direction=direction)
    scores = late(late.look(tower, data.inputs), tower)
    order = [2, 0, 1]
    late.documents = [data.documents[c] for c in order]
    torch.testing.assert_close(late(late.look(tower, data.inputs), tower), scores[:, order])
    late.documents = list(data.documents)
    for at in range(4):
        torch.testing.assert_close(late(late.look(tower, data.inputs[at : at + 1]), tower), scores[at : at + 1])
    reading = late.reading(tower)
    again = reading_of(reading.described(), reading.tensors())
    assert torch.equal(again(tower.tokens(data.inputs)), reading(tower.tokens(data.inputs)))


@pytest.mark.paper(102, oracle="e")
def test_a_batch_of_one_class_has_a_loss(tower: BertTower, data: Data) -> None:
    late = begun(tower, data)
    rows = torch.tensor([0, 0, 3, 3])
    assert data.labels[rows].eq(0).all()
    assert torch.isfinite(LateContrast()(seen(tower, data, late, rows)))


def test_the_linear_head_is_divided_by_the_number_of_classes(tower: BertTower, data: Data) -> None:
    late, rows = begun(tower, data), torch.tensor([0, 1, 2, 4])
    logits = functional.linear(tower([data.inputs[i] for i in rows.tolist()]), late.weight, late.bias) / 3
    want = 0.1 * functional.cross_entropy(logits, data.labels[rows])
    torch.testing.assert_close(LateClasses()(seen(tower, data, late, rows)), want)


def test_repeats_are_the_same_items_with_another_dropout(tower: BertTower, data: Data) -> None:
    rows = next(Repeated(4).draws(data, 5, torch.Generator().manual_seed(0)))
    assert len(rows) == 20 and torch.equal(rows.view(4, 5), rows[:5].expand(4, 5))
    late = begun(tower, data).train()
    tower.train()
    states = late.projected(late.look(tower, [data.inputs[0]] * 2)).states
    assert not torch.allclose(states[0], states[1])


def test_it_learns_and_a_class_without_items_answers(tower: BertTower, data: Data) -> None:
    tuned = tune(tower, data, recipe("fastfit", width=8, lr=1e-2, epochs=20))
    least = math.log(31)  # of a text that is as close to the 31 others of its class, and far from all else
    assert tuned.losses[0] > least + 1 and tuned.losses[-1] < least + 0.2
    assert (tuned.logits(data.inputs).argmax(1) == data.labels).float().mean() > 0.9
    assert isinstance(tuned.readout, Late) and tuned.readout.unseen == ()
    more = Data(data.inputs, functional.one_hot(data.labels, 4).float(), (*data.classes, "d"),
                documents=[*data.documents, [1, 50, 51, 2]])  # fmt: skip
    wider = tune(tower, more, recipe("fastfit", width=8, lr=1e-2, epochs=20))
    assert isinstance(wider.readout, Late) and wider.readout.unseen == ("d",)
    assert int(wider.logits([[1, 50, 51, 2]]).argmax()) == 3


def test_the_linear_head_answers_where_it_is_asked(tower: BertTower, data: Data) -> None:
    tuned = tune(tower, data, recipe("fastfit", width=8, lr=1e-2, epochs=2, answer="head"))
    late = tuned.readout
    assert isinstance(late, Late)
    with torch.no_grad(), tuned.delta.attached(tower):
        mean = tower(data.inputs)
        own = late.ships(tower)
    want = (mean @ late.weight.mT + late.bias) / 3
    torch.testing.assert_close(tuned.logits(data.inputs), want)
    assert own is not None and own.reading is None
    torch.testing.assert_close(mean @ own.weight.mT + own.bias, want)


def test_what_ships_is_what_was_learnt(tower: BertTower, data: Data) -> None:
    tuned = tune(tower, data, recipe("fastfit", width=8, lr=1e-2, epochs=2))
    logits = tuned.logits(data.inputs)
    with torch.no_grad(), tuned.delta.attached(tower):
        own = tuned.readout.ships(tower)
        assert own is not None and own.reading is not None
        x = own.reading(tower.tokens(data.inputs))
    torch.testing.assert_close(x @ own.weight.mT + own.bias, logits)
    assert AsIs().ships(tower) is None


def test_defaults_are_those_of_the_paper() -> None:
    made = FastFit().recipe()
    stage = made.stages[0]
    assert (stage.lr, stage.batch, stage.epochs, stage.rate, stage.warmup) == (5e-5, 32, 40, "linear", 0.0)
    assert isinstance(stage.update(0.0), Adafactor)
    assert made.objectives == (LateContrast(0.07), LateClasses(0.1)) and made.sampler == Repeated(4)
    assert made.readout is not None
    late = made.readout()
    assert isinstance(late, Late) and (late.width, late.direction, late.dropout) == (128, "doc", 0.1)


def test_what_cannot_be_is_refused(tower: BertTower, data: Data) -> None:
    def with_texts(*documents: list[int]) -> Data:
        return Data(data.inputs, data.labels, data.classes, documents=documents)

    for wrong, complaint in [
        (Data(data.inputs, data.labels), "give them as documents"),
        (with_texts([1, 2], [1, 2], [3]), "classes 'a' and 'b' have the same text"),
        (with_texts([1, 2], [], [3]), "class 'b' is empty"),
    ]:
        with pytest.raises(BadInput, match=complaint):
            begun(tower, wrong)
    with pytest.raises(BadInput, match="2 class texts, but 3 classes"):
        with_texts([1], [2])
    with pytest.raises(BadInput, match="a Linear gives none"):
        Late().begin(nn.Linear(2, 2), data, torch.Generator())
    with pytest.raises(BadInput, match="direction is one of"):
        Late(direction="docs")  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="answer is 'texts' or 'head'"):
        Late(answer="clf")  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="not 0 times"):
        Repeated(0)
    for wrong_number in ("temperature=0", "temperature=nan", "factor=-1"):
        with pytest.raises(BadInput, match="temperature is above 0, factor 0 or more"):
            recipe(f"fastfit:{wrong_number}")
    with pytest.raises(BadInput, match="must be positive, not 0"):
        Late(0)
    with pytest.raises(BadInput, match="sequence 1 of b has no token"):
        token_similarity(tokens([2]), Tokens(torch.zeros(2, 1, 4), torch.tensor([[1.0], [0.0]])))
    with pytest.raises(BadInput, match="belongs to the readout Late"):
        LateContrast()(seen(tower, data, AsIs(), torch.tensor([0])))  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="do not fit together"):
        LateInteraction(torch.zeros(3, 4), torch.zeros(2, 5, 4), torch.ones(2, 5))
    with pytest.raises(BadInput, match="no reading 'eval'"):
        reading_of({"kind": "eval"}, {})
