"""T-Few (027): its losses, its recipe."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import tiny_lm
import torch
from torch import Tensor

from handful.encode.language_tower import normalised
from handful.errors import BadInput
from handful.tune import Data, Shuffled, tune
from handful.tune.prompting import everything
from handful.tune.recipe import Recipe, Seen
from handful.tune.t_few import Asked, LanguageLoss, LengthNormalised, TFew, TFewClassifier, Unlikelihood

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "t_few_losses.json").read_text(encoding="utf-8"))
TEXTS = ["a great film", "great actors", "it was great", "a terrible film", "terrible actors", "it was terrible"]
LABELS = ["very good"] * 3 + ["bad"] * 3


def seen(features: Tensor, labels: Tensor, weight: Tensor | None = None) -> Any:
    targets = torch.nn.functional.one_hot(labels, features.shape[1]).float()
    weight = torch.ones(len(labels)) if weight is None else weight
    made = Seen(None, None, None, None, targets, weight, 0, 1, torch.Generator())  # type: ignore[arg-type]
    made.__dict__["features"] = features
    return made


def case(one: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
    b, c, t, v = one["shape"]
    g = torch.Generator().manual_seed(one["seed"])
    logits, ids = torch.randn(b * c, t, v, generator=g), torch.randint(1, v, (b, c, t), generator=g)
    lengths = torch.randint(1, t + 1, (b, c), generator=g)
    lengths[0, 0] = t
    labels = torch.randint(c, (b,), generator=g)
    known = torch.arange(t) < lengths[..., None]
    logs = logits.view(b, c, t, v).log_softmax(-1).gather(-1, ids[..., None])[..., 0]
    return torch.where(known, logs, float("-inf")), labels, known


@pytest.mark.paper(27, oracle="i")
@pytest.mark.parametrize("one", GOLDEN["cases"], ids=lambda one: str(one["seed"]))
def test_losses_are_those_of_the_reference(one: dict[str, Any]) -> None:
    features, labels, known = case(one)
    step = seen(features, labels)
    torch.testing.assert_close(
        -normalised(features, one["length_norm"]), torch.tensor(one["scores"]), atol=1e-4, rtol=0
    )
    assert float(LanguageLoss()(step)) == pytest.approx(one["lm"], abs=1e-5)
    assert float(LengthNormalised(2.0, one["length_norm"])(step)) == pytest.approx(2 * one["ln"], abs=1e-5)
    assert float(Unlikelihood(reference=True)(step)) == pytest.approx(one["ul"], abs=1e-5)
    wrong = known.clone()
    wrong[torch.arange(len(labels)), labels] = False
    extra = -math.log(1.01) * float((~wrong).sum()) / float(wrong.sum())
    assert float(Unlikelihood()(step)) == pytest.approx(one["ul"] - extra, abs=1e-5)


@pytest.mark.paper(27, oracle="e")
def test_losses_of_a_model_that_knows_nothing() -> None:
    v, ways = 50, 4
    features = torch.full((6, ways, 3), -math.log(v))
    features[:, 1, 2] = float("-inf")  # one answer is shorter
    step = seen(features, torch.arange(6) % ways)
    assert float(LanguageLoss()(step)) == pytest.approx(math.log(v), abs=1e-5)
    assert float(LengthNormalised()(step)) == pytest.approx(math.log(ways), abs=1e-5)
    assert float(Unlikelihood()(step)) == pytest.approx(-math.log(1 - 1 / v + 0.01), abs=1e-6)


def test_a_weight_counts_an_item_so_often() -> None:
    features, labels, _ = case(GOLDEN["cases"][0])
    twice = torch.tensor([0, 0, 1, 2])
    for loss in (LanguageLoss(), LengthNormalised(), Unlikelihood()):
        weighted = loss(seen(features, labels, torch.tensor([2.0, 1.0, 1.0])))
        torch.testing.assert_close(weighted, loss(seen(features[twice], labels[twice])))


def test_gradients_are_numbers_where_answers_are_short() -> None:
    features, labels, _ = case(GOLDEN["cases"][0])
    logs = features.clamp_min(-9).requires_grad_()
    cut = torch.where(features > float("-inf"), logs, float("-inf"))
    loss = sum(f(seen(cut, labels)) for f in (LanguageLoss(), LengthNormalised(), Unlikelihood()))
    (gradient,) = torch.autograd.grad(loss, logs, retain_graph=True)  # type: ignore[arg-type]
    assert bool(gradient.isfinite().all()) and not gradient[features == float("-inf")].any()
    plain, padded = (
        torch.autograd.grad(Unlikelihood(reference=r)(seen(cut, labels)), logs, retain_graph=True)[0]
        for r in (False, True)
    )
    torch.testing.assert_close(plain, padded)  # the constant has no gradient


@pytest.mark.paper(27, oracle="f")
def test_equal_lengths_differ_by_the_length() -> None:
    features = torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(0)) - 3
    torch.testing.assert_close(normalised(features, 0), 4 * normalised(features, 1))


def quick(kind: str, **options: Any) -> TFewClassifier:
    template = "*cls**sent_0*_._it_was*mask*.*sep+*" if kind == "masked" else "*sent_0*_. it was"
    return TFewClassifier(tiny_lm.tiny(kind), [template], TFew(steps=40, lr=0.03, **options), everything)


@pytest.mark.paper(27, oracle="g")
@pytest.mark.parametrize("kind", ["seq2seq", "causal", "masked"])
def test_answers_are_learnt_whatever_their_order(kind: str) -> None:
    first = quick(kind).fit(TEXTS, LABELS, ["very good", "bad"])
    assert first.predict(TEXTS, ["very good", "bad"]).tolist() == LABELS
    assert first.predict(TEXTS, ["bad", "very good"]).tolist() == LABELS
    other = quick(kind).fit(TEXTS, LABELS, ["bad", "very good"])
    assert other.tuned is not None and first.tuned is not None
    assert other.tuned.losses[:3] == pytest.approx(first.tuned.losses[:3], rel=1e-5)
    assert other.predict(TEXTS, ["very good", "bad"]).tolist() == LABELS


def test_every_item_may_have_its_own_answers() -> None:
    own = [["very good", "bad", "not long"], ["dull", "very good"], ["very good", "bad"]] + [["bad", "very good"]] * 3
    model = quick("causal").fit(TEXTS, LABELS, own)
    assert model.predict(TEXTS, own).tolist() == LABELS
    logits = model.logits(TEXTS, own)
    assert logits.shape == (6, 3) and logits[1:, 2].tolist() == [float("-inf")] * 5


def test_templates_are_drawn_and_each_is_judged() -> None:
    model = tiny_lm.tiny("causal")
    asked = Asked(model, tuple(TFewClassifier(model, ["*sent_0*_a", "*sent_0*_of", "in_*sent_0*"])._asked.templates))
    items = [(["the film"], ((5,),))] * 300
    drawn = asked(items, torch.arange(300), torch.Generator().manual_seed(0))
    counts = [sum(one.prompt == asked.ask(items[0], t).prompt for one in drawn) for t in range(3)]
    assert sum(counts) == 300 and min(counts) > 75
    fitted = TFewClassifier(model, ["*sent_0*_. it was", "review_*sent_0*"], TFew(steps=80, lr=0.05)).fit(
        TEXTS, LABELS, ["very good", "bad"]
    )
    assert fitted.accuracies(TEXTS, LABELS, ["very good", "bad"]).shape == (2,)
    assert (
        fitted.accuracies(TEXTS, LABELS, ["very good", "bad"])[0]
        == (fitted.predict(TEXTS, ["very good", "bad"], 0) == LABELS).mean()
    )


def test_a_run_may_begin_where_another_ended() -> None:
    first = quick("causal").fit(TEXTS, LABELS, ["very good", "bad"])
    again = quick("causal")
    again.start, again.settings = first.tuned, TFew(steps=0)
    again.fit(TEXTS, LABELS, ["very good", "bad"])
    torch.testing.assert_close(again.logits(TEXTS, ["very good", "bad"]), first.logits(TEXTS, ["very good", "bad"]))


def test_the_recipe_is_the_papers() -> None:
    recipe = TFew().recipe()
    stage = recipe.stages[0]
    assert (stage.steps, stage.lr, stage.batch, stage.warmup, stage.rate) == (1000, 3e-3, 8, 0.06, "linear")
    assert type(stage.update(0.0)).__name__ == "Adafactor" and (stage.weight_decay, stage.clip) == (0, 1.0)
    assert [o.name for o in recipe.objectives] == ["lm", "length-normalised", "unlikelihood"]
    assert [o.name for o in TFew(w_ln=0, w_ul=0).recipe().objectives] == ["lm"]
    sampler, data = Shuffled(whole=True), Data(torch.zeros(11, 2), torch.arange(11) % 2)
    draws = sampler.draws(data, 4, torch.Generator().manual_seed(0))
    sizes = [len(next(draws)) for _ in range(4)]
    assert sizes == [4, 4, 4, 4] and sampler.steps(data, 2, 4) == 4
    assert len(next(sampler.draws(data, 20, torch.Generator()))) == 11


def test_a_run_may_go_on_from_another() -> None:
    first = quick("causal").fit(TEXTS, LABELS, ["very good", "bad"])
    again = TFewClassifier(first.model, first.templates, TFew(steps=0), everything, start=first.tuned)
    again.fit(TEXTS, LABELS, ["very good", "bad"])
    torch.testing.assert_close(again.logits(TEXTS, ["bad"]), first.logits(TEXTS, ["bad"]))
    plain = TFewClassifier(first.model, first.templates, TFew(steps=0), everything).fit(
        TEXTS, LABELS, ["very good", "bad"]
    )
    assert not torch.allclose(plain.logits(TEXTS, ["bad"]), first.logits(TEXTS, ["bad"]), atol=1e-3)
    with pytest.raises(BadInput, match="are of another kind"):
        TFewClassifier(first.model, first.templates, TFew(steps=0), start=first.tuned).fit(
            TEXTS, LABELS, ["very good", "bad"]
        )


def test_a_long_prompt_keeps_its_end() -> None:
    text = "the film was great and the story was moving"
    seq, causal, masked = (tiny_lm.tiny(kind) for kind in ("seq2seq", "causal", "masked"))

    def asked(model: Any, template: str, most: int) -> list[str]:
        made = TFewClassifier(model, [template], most=most)._asked.ask(([text], (model.answer("very good"),)), 0)
        return model.tokenizer.convert_ids_to_tokens(list(made.prompt.ids))  # type: ignore[no-any-return]

    def same(model: Any, words: str) -> list[str]:
        return model.tokenizer.convert_ids_to_tokens(model.tokenizer.encode(words, add_special_tokens=False))  # type: ignore[no-any-return]

    whole = asked(seq, "*sent_0*_it_was*sep*", 99)
    assert asked(seq, "*sent_0*_it_was*sep*", 6) == [*whole[:5], whole[-1]]  # as T5's tokenizer cuts
    assert asked(seq, "*sent_0*_it_was", 6) == whole[:6]
    question = asked(causal, "*sent_0*_it_was", 9)
    it_was = same(causal, " it was")
    assert question == same(causal, text)[: 9 - len(it_was)] + it_was
    causal.most = 12  # what the model reads holds the answer as well
    assert len(asked(causal, "*sent_0*_it_was", 99)) == 12 - len(causal.answer("very good"))
    assert "[MASK]" in asked(masked, "*cls**sent_0**mask**sep+*", 6)
    with pytest.raises(BadInput, match="leaves no room for text in 2 tokens"):
        asked(causal, "*sent_0*_it_was", 2)


def test_examples_of_one_answer_are_learnt_from_with_a_warning() -> None:
    with pytest.warns(UserWarning, match="all 2 examples have the answer 'bad'"):
        quick("causal").fit(TEXTS[:2], ["bad", "bad"], ["good", "bad"])


def test_what_cannot_be_chosen_is_refused() -> None:
    model = quick("causal")
    with pytest.raises(BadInput, match=r"label 'meh' of example 1 is none of its choices \['good', 'bad'\]"):
        model.fit(TEXTS[:2], ["good", "meh"], ["good", "bad"])
    with pytest.raises(BadInput, match="there is no template 3; there are 1, counted from 0"):
        quick("seq2seq").fit(TEXTS, LABELS, ["very good", "bad"]).logits(TEXTS, ["very good", "bad"], 3)
    for wrong in ({"w_ul": -1.0}, {"w_ln": math.nan}, {"length_norm": -1.0}):
        with pytest.raises(BadInput, match="w_ln, w_ul and length_norm are 0 or more"):
            TFew(**wrong)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="2 texts, but 1 labels"):
        model.fit(TEXTS[:2], ["good"], ["good", "bad"])
    with pytest.raises(BadInput, match="there are no texts"):
        model.fit([], [], ["good", "bad"])
    with pytest.raises(BadInput, match="has the answer 'good' twice"):
        model.fit(TEXTS[:1], ["good"], ["good", "good"])
    with pytest.raises(BadInput, match="choices 'good' and 'Good' of example 0 are the same to the tokenizer"):
        quick("seq2seq").fit(TEXTS[:1], ["good"], ["good", "Good"])
    with pytest.raises(BadInput, match="item 1 is '3', a int"):
        model.fit(["a", 3], ["good", "bad"], ["good", "bad"])  # type: ignore[list-item]
    with pytest.raises(BadInput, match="has not been fitted"):
        model.logits(TEXTS, ["good", "bad"])
    with pytest.raises(BadInput, match="templates are a list"):
        TFewClassifier(model.model, "*sent_0*")
    with pytest.raises(BadInput, match="both recipes fill the slot 'sampler'"):
        tune(model.model.tower, Data([1], torch.tensor([0])), TFew().recipe() | Recipe(sampler=Shuffled()))
