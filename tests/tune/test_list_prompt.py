"""LiST (123): a teacher's answers on unlabelled texts, weighted by what they do for the labelled ones."""

from __future__ import annotations

import itertools
from functools import partial
from typing import Any

import pytest
import tiny_lm
import torch
from torch import Tensor, nn
from torch.nn import functional

from handful.errors import BadInput
from handful.tune import Data, Recipe, Stage, tune
from handful.tune.list_prompt import FirstUnlabelled, ListClassifier, SelfTraining, UnlessEmpty, meta_weights
from handful.tune.prompting import Words, divergence
from handful.tune.recipe import Seen

TEXTS = ["a great film", "great actors", "a terrible film", "terrible actors"]
LABELS = ["pos", "pos", "neg", "neg"]
MORE = [
    f"{a} {b} {c}" for a in ("the", "a") for b in ("great", "terrible") for c in ("story", "plot", "review", "news")
]
TRUTH = ["neg" if "terrible" in text else "pos" for text in MORE]


def quick(**options: Any) -> ListClassifier:
    settings = {
        "template": "*cls**sent_0*_._it_was*mask*.*sep+*", "words": {"neg": "not", "pos": "very"}, "width": 8,
        "rounds": 2, "steps": 30, "lr": 0.01, "epochs": 30, "few_lr": 0.01,
    }  # fmt: skip
    return ListClassifier(tiny_lm.tiny("masked"), **(settings | options))


def linear(seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    w = torch.randn(3, 4, generator=g, dtype=torch.float64, requires_grad=True)
    x, u = (torch.randn(n, 4, generator=g, dtype=torch.float64) for n in (5, 7))
    y = torch.randint(3, (5,), generator=g)
    q = torch.randn(7, 3, generator=g, dtype=torch.float64).softmax(1)
    return w, x, y, u, q


@pytest.mark.paper(123, oracle="b")
def test_weights_are_what_a_step_would_do_to_the_labelled_loss() -> None:
    w, x, y, u, q = linear()
    lr, h = 0.1, 1e-5
    found = meta_weights(divergence(q, u @ w.T), functional.cross_entropy(x @ w.T, y), [w], lr, eps=0)

    def after(item: int, share: float) -> float:
        """Loss on the labelled items after a step on one unlabelled item, so far."""
        (step,) = torch.autograd.grad(divergence(q, u @ w.T)[item], [w])
        return float(functional.cross_entropy(x @ (w - lr * share * step).T, y))

    fall = torch.tensor([(after(i, -h) - after(i, h)) / (2 * h) for i in range(7)], dtype=torch.float64).clamp_min(0)
    assert 0 < int((found > 0).sum()) < 7
    torch.testing.assert_close(found, fall / fall.sum(), atol=1e-4, rtol=1e-4)
    (lab,) = torch.autograd.grad(functional.cross_entropy(x @ w.T, y), [w])
    rows = [torch.autograd.grad(divergence(q, u @ w.T)[i], [w])[0] for i in range(7)]
    dots = torch.stack([(lab * row).sum() for row in rows]).clamp_min(0)
    torch.testing.assert_close(found, dots / dots.sum())
    small = meta_weights(divergence(q, u @ w.T), functional.cross_entropy(x @ w.T, y), [w], 1e-9)
    assert float(small.sum()) < 0.1  # the raw sum is far below eps
    torch.testing.assert_close(small, 1e-9 * dots / (1e-9 * dots.sum() + 1e-6))


@pytest.mark.paper(123, oracle="c")
def test_a_flipped_twin_weighs_nothing() -> None:
    w = torch.zeros(2, 2, requires_grad=True)
    x, y = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 1])
    u, q = torch.tensor([[1.0, 0.2], [1.0, 0.2]]), torch.tensor([[0.95, 0.05], [0.05, 0.95]])
    right, flipped = meta_weights(divergence(q, u @ w.T), functional.cross_entropy(x @ w.T, y), [w]).tolist()
    assert right > 0 and flipped == 0


@pytest.mark.paper(123, oracle="d")
def test_a_student_that_is_its_teacher_has_nothing_to_learn() -> None:
    logits = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    loss = divergence(logits.detach().softmax(1), logits)
    torch.testing.assert_close(loss, torch.zeros(6, dtype=torch.float64), atol=1e-12, rtol=0)
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    assert gradient.abs().max() < 1e-12


@pytest.mark.paper(123, oracle="e")
def test_what_learns_is_bottlenecks_and_the_head() -> None:
    model = quick(rounds=0, epochs=0)
    model.fit(TEXTS, LABELS, MORE)
    assert model.tuned is not None
    head = 16 * 16 + 16 + 2 * 16 + len(model.model.tokenizer)  # dense, norm, bias of the words; not their table
    assert model.tuned.delta.trainable() == 2 * 2 * 2 * 16 * 8 + head


@pytest.mark.paper(123, oracle="a")
def test_without_training_it_is_nearly_the_model_itself() -> None:
    model = quick(rounds=0, epochs=0).fit(TEXTS, LABELS, MORE)
    prompts = model._prompts(TEXTS)
    before = model.model.mask_logits(prompts)[:, model._ids]
    torch.testing.assert_close(model.logits(TEXTS), before, atol=1e-3, rtol=0)  # begun at 0.0002
    assert model.tuned is not None
    for holder in model.tuned.delta.holders:
        if hasattr(holder, "U"):
            holder.U.data.zero_()
    torch.testing.assert_close(model.logits(TEXTS), before, atol=1e-6, rtol=0)


@pytest.mark.parametrize("soft", [True, False])
def test_students_learn_from_texts_without_labels(soft: bool) -> None:
    model = quick(soft=soft).fit(TEXTS, LABELS, MORE)
    assert model.predict(TEXTS).tolist() == LABELS
    again = quick(soft=soft).fit(TEXTS, LABELS, MORE)
    assert torch.equal(model.logits(MORE), again.logits(MORE))
    teacher = quick(rounds=0).fit(TEXTS, LABELS, MORE)
    assert not torch.allclose(model.logits(MORE), teacher.logits(MORE), atol=1e-2)


def test_weights_in_a_run_are_uniform_first_and_learnt_then() -> None:
    model = quick()
    targets = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.5, 0.5]] * 4)
    few = Data(model._prompts(TEXTS), torch.tensor([1, 1, 0, 0]), ("neg", "pos"))
    seen_weights: list[Tensor] = []

    class Watched(SelfTraining):
        def weights(self, seen: Any) -> Tensor:
            seen_weights.append(super().weights(seen))
            parameters = seen.learns
            if seen.step >= 3:
                rows = torch.arange(4)
                seen.model.eval()
                losses = divergence(seen.targets, seen.readout(seen.model(seen.inputs), seen.model))
                logits = seen.readout(seen.model(few.take(rows)), seen.model)
                lab = torch.autograd.grad(functional.cross_entropy(logits, few.targets), parameters)
                dots = []
                for loss in losses:
                    own = torch.autograd.grad(loss, parameters, retain_graph=True)
                    dots.append(sum(float((a * b).sum()) for a, b in zip(lab, own, strict=True)))
                seen.model.train()
                expected = torch.tensor(dots).clamp_min(0)
                torch.testing.assert_close(seen_weights[-1], expected / expected.sum(), atol=1e-3, rtol=1e-2)
            return seen_weights[-1]

    loss = Watched(few, 5, threshold=0.7, eps=0.0)
    recipe = Recipe(
        model.changes(), (loss,), (Stage(steps=5, lr=1e-3, batch=16),), readout=partial(Words, model._ids),
        step=UnlessEmpty(),
    )  # fmt: skip
    tune(model.model.tower, Data(model._prompts(MORE), targets, ("neg", "pos")), recipe)
    assert [sorted(set(w.tolist())) for w in seen_weights[:3]] == [[0.0, pytest.approx(1 / 8, abs=1e-5)]] * 3
    assert all(len(set(w.tolist())) > 3 and float(w.sum()) == pytest.approx(1, abs=1e-5) for w in seen_weights[3:])


def test_a_student_goes_on_to_the_labelled_texts_with_one_rate_that_falls() -> None:
    """As the authors' loop: 1e-4 falls over both, and nothing but labelled texts is seen in the end."""
    many, few = (Data(torch.zeros(n, 1), torch.arange(n) % 2) for n in (7, 3))
    rows = FirstUnlabelled(many, few, count=5, batch=2)
    assert rows.steps(many, 4, 3) == 5 + 4 * 2
    drawn = list(itertools.islice(rows.draws(many, 3, torch.Generator().manual_seed(0)), 9))
    assert all(int(some.max()) < 7 for some in drawn[:5]) and sorted(torch.cat(drawn[:3]).tolist()) == list(range(7))
    assert sorted(torch.cat(drawn[5:7]).tolist()) == sorted(torch.cat(drawn[7:]).tolist()) == [7, 8, 9]
    model = quick(rounds=1, steps=6, epochs=50, lr=0.01, few_lr=0.0).fit(TEXTS, LABELS, MORE)
    assert model.tuned is not None and len(model.tuned.losses) == 6 + 50
    assert model.tuned.losses[-1] < 0.1 < 0.5 < model.tuned.losses[6]  # learnt at the student's rate, not the teacher's


@pytest.mark.parametrize("soft", [True, False])
def test_what_the_teacher_is_not_sure_of_is_left_out(soft: bool) -> None:
    """Also where its answers alone are learnt: how sure it is does not follow from them."""
    w = torch.tensor([[2.0, 0.0], [0.0, 2.0]])
    targets = torch.tensor([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8]])
    readout = Words(torch.tensor([0, 1]))
    few = Data(torch.eye(2), torch.tensor([0, 1]))
    seen = Seen(nn.Linear(2, 2), readout, torch.arange(3), None, targets, torch.ones(3), 0, 9, torch.Generator())
    seen.__dict__["logits"] = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]) @ w
    loss = SelfTraining(few, 9, soft=soft, threshold=0.7)
    torch.testing.assert_close(loss.weights(seen), torch.tensor([0.5, 0.0, 0.5]), atol=1e-4, rtol=0)
    known = targets if soft else torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    each = (torch.xlogy(known, known) - known * seen.logits.log_softmax(1)).sum(1)
    torch.testing.assert_close(loss(seen), (each[0] + each[2]) / 2, atol=1e-4, rtol=1e-4)


def test_a_step_that_no_text_helps_is_left_out() -> None:
    model = quick()
    few = Data(model._prompts(TEXTS), torch.tensor([1, 1, 0, 0]), ("neg", "pos"))
    targets = torch.tensor([[0.5, 0.5]] * 16)
    loss = SelfTraining(few, 5, threshold=0.7)
    recipe = Recipe(
        model.changes(),
        (loss,),
        (Stage(steps=5, lr=1e-3, batch=4),),
        readout=partial(Words, model._ids),
        step=UnlessEmpty(),
    )
    tuned = tune(model.model.tower, Data(model._prompts(MORE), targets, ("neg", "pos")), recipe)
    assert loss.skipped >= 3 and tuned.losses[:3] == [0.0] * 3


def test_bottlenecks_may_have_an_activation_and_texts_a_limit() -> None:
    model = quick(rounds=1, epochs=1, steps=2, activation="relu", length=8, first=2)
    assert all(getattr(one.change, "activation", "relu") == "relu" for one in model.changes())
    assert model.fit(TEXTS, LABELS, ["a great film of the actors"]).logits(["a great story and no plot"]).shape == (
        1,
        2,
    )
    with pytest.raises(BadInput, match=r"the mask was cut off, .* shorten the texts \(first=, others=\)"):
        quick(length=8).fit(["a great film of the actors", *TEXTS[1:]], LABELS, MORE)


def test_what_cannot_teach_is_refused() -> None:
    with pytest.raises(BadInput, match="no unlabelled texts"):
        quick().fit(TEXTS, LABELS, [])
    with pytest.raises(BadInput, match="class 'neg' has no labelled text"):
        quick().fit(TEXTS[:2], LABELS[:2], MORE)
    with pytest.raises(BadInput, match="label 'meh' has no word"):
        quick().fit(TEXTS, ["meh"] * 4, MORE)
    with pytest.raises(BadInput, match=r"surer than 0.99999 of no unlabelled text"):
        quick(threshold=0.99999, epochs=0).fit(TEXTS, LABELS, MORE)
    for wrong in ({"meta_from": 1.5}, {"steps": -1}, {"eps": float("nan")}):
        with pytest.raises(BadInput, match="meta_from is a share, steps and eps not negative"):
            quick(**wrong)
    with pytest.raises(BadInput, match="activation is 'identity' or 'relu', not 'gelu'"):
        quick(activation="gelu")
    with pytest.raises(BadInput, match="has not been fitted"):
        quick().logits(TEXTS)
    with pytest.raises(BadInput, match="asks a masked model"):
        ListClassifier(tiny_lm.tiny("causal"), "*sent_0*", {"neg": "not", "pos": "very"})
    with pytest.raises(BadInput, match="a probability below 1"):
        quick(threshold=1.0)
