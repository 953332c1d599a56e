"""BBTv2 (097): prompts added in every layer, found without a gradient."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_lm
import torch
from torch import Tensor

from handful.errors import BadInput
from handful.tune.bbt import BlackBoxTuner, added, hinge, spread
from handful.tune.evolution import Evolution

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "bbt.json").read_text(encoding="utf-8"))
TEXTS = ["a great film", "great actors", "it was great", "a terrible film", "terrible actors", "it was terrible"]
LABELS = ["good", "good", "good", "bad", "bad", "bad"]
WORDS = {"good": "good", "bad": "bad"}
needs_cma = pytest.mark.filterwarnings("ignore:Could not import matplotlib")


def quick(kind: str = "masked", **options: Any) -> BlackBoxTuner:
    template = {} if kind != "causal" else {"template": "*cls**sent_0*_It_was*"}
    settings = {"prompt_tokens": 3, "first_token": 12, "dim": 4, "alpha": 1.0, "check": 10}
    search = Evolution(sigma=1.0, popsize=6, budget=options.pop("budget", 24), seed=1)
    return BlackBoxTuner(tiny_lm.tiny(kind), WORDS, search=search, **{**settings, **template, **options})  # type: ignore[arg-type]


@pytest.mark.paper(97, oracle="a")
@pytest.mark.parametrize("kind", ["masked", "roberta", "causal"])
def test_prompts_of_zero_are_the_model_as_it_is(kind: str) -> None:
    tuner = quick(kind)
    asked, tower = tuner.ask([[text] for text in TEXTS]), tuner.model.tower
    assert all(prompt.ids[1:4] == (12, 13, 14) for prompt in asked)
    with torch.no_grad():
        plain = tower(asked)
        with added(tower, [torch.zeros(3, 16)] * 2, 1):
            torch.testing.assert_close(tower(asked), plain)
        with added(tower, [torch.zeros(3, 16), torch.ones(3, 16)], 1):
            assert (tower(asked) - plain).abs().max() > 1e-3
        assert torch.equal(tower(asked), plain)


def test_prompts_are_added_where_the_words_are() -> None:
    """By hand, block after block."""
    tuner = quick()
    asked, tower = tuner.ask([["a great film"], ["no"]]), tuner.model.tower
    draw = torch.Generator().manual_seed(0)
    prompts = [torch.randn(3, 16, generator=draw) for _ in range(2)]
    inputs = tower.inputs(asked)
    with torch.no_grad():
        bert = tower.body.bert
        h = bert.embeddings(inputs["input_ids"], inputs["token_type_ids"])
        unseen = (1.0 - inputs["attention_mask"][:, None, None, :].float()) * torch.finfo(torch.float32).min
        for block, p in zip(bert.encoder.layer, prompts, strict=True):
            h = h.clone()
            h[:, 1:4] += p
            h = block(h, unseen)
            h = h[0] if isinstance(h, tuple) else h
        at = torch.tensor([prompt.masks[0] for prompt in asked])
        expected = tower.body.cls(h[torch.arange(2), at])
        with added(tower, prompts, 1):
            torch.testing.assert_close(tower(asked), expected, atol=1e-5, rtol=1e-5)
        with added(tower, prompts[:1], 1), added(tower, [torch.zeros(3, 16), prompts[1]], 1):
            torch.testing.assert_close(tower(asked), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.paper(97, oracle="d")
def test_prompts_have_the_spread_of_what_they_are_added_to() -> None:
    tuner = quick(dim=50, alpha=0.3)
    tuner.search = Evolution(sigma=0.7, popsize=6, budget=24)
    asked, body = tuner.ask([[text] for text in TEXTS]), tuner.model.tower.body
    with torch.no_grad():
        body.bert.encoder.layer[0].output.LayerNorm.weight *= 3  # what the first layer gives is wider than what it gets
    maps = tuner.maps(asked)
    with torch.no_grad():
        states = body(**tuner.model.tower.inputs(asked), output_hidden_states=True).hidden_states
        sigmas = [float(np.std(body.get_input_embeddings().weight.numpy())), clipped(states[1].numpy())]
    z = 0.7 * torch.randn(50, 4000, generator=torch.Generator().manual_seed(0))
    for a, sigma in zip(maps, sigmas, strict=True):
        assert a.shape == (3 * 16, 50)
        assert float((a @ z).std()) == pytest.approx(0.3 * sigma, rel=0.05)
    assert len(quick(layers="input").maps(asked)) == 1


def clipped(x: np.ndarray) -> float:
    """As the authors' code goes about it, five times."""
    mean, std = x.mean(), x.std()
    for _ in range(5):
        x = np.clip(x, mean - 3 * std, mean + 3 * std)
        mean, std = x.mean(), x.std()
    return float(std)


def test_the_spread_is_taken_without_what_sticks_out() -> None:
    x = np.random.default_rng(0).standard_normal((50, 40)).astype(np.float32)
    x[0, 0], x[3, 5] = 1e3, -400
    assert spread(torch.from_numpy(x)) == pytest.approx(clipped(x), rel=1e-5)
    assert clipped(x) < 0.5 * x.std()


@pytest.mark.paper(97, oracle="f")
def test_the_hinge_is_the_authors() -> None:
    g = torch.Generator().manual_seed(97)
    logits, labels = torch.randn(12, 4, generator=g) * 3, torch.randint(0, 4, (12,), generator=g)
    for margin in (2, 0.5):
        assert float(hinge(logits, labels, margin)) == pytest.approx(GOLDEN[f"margin {margin}"], rel=1e-6)
    y = torch.tensor([0])
    assert float(hinge(torch.tensor([[3.0, 2.0, 0.0]]), y)) == pytest.approx(1.0)
    by_accuracy = quick(loss="accuracy").loss_of(torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([0, 1]))
    assert float(by_accuracy) == -0.5


@pytest.mark.paper(97, oracle="b")
@needs_cma
def test_one_layer_is_plain_cma() -> None:
    cma = pytest.importorskip("cma")
    a, target = torch.eye(5, dtype=torch.float64), torch.tensor([0.3, -1, 2, 0, 1.0], dtype=torch.float64)
    ours: list[np.ndarray] = []
    theirs: list[np.ndarray] = []

    def value(x: np.ndarray, seen: list[np.ndarray]) -> float:
        seen.append(np.array(x))
        return float(((x - target.numpy()) ** 2).sum())

    found = Evolution(0.2, 6, 60, seed=7).search(lambda p: value(p[0].numpy(), ours), [a])
    draw = np.random.default_rng(7)
    options = {"seed": np.nan, "randn": lambda *shape: draw.standard_normal(shape)}
    options |= {"popsize": 6, "maxiter": 10, "verbose": -9, "verb_log": 0}
    best, _ = cma.fmin2(lambda x: value(x, theirs), 5 * [0.0], 0.2, options)
    np.testing.assert_allclose(ours, theirs[:60], atol=1e-12)
    lowest = min(range(60), key=lambda i: float(((ours[i] - target.numpy()) ** 2).sum()))
    np.testing.assert_allclose(found.prompts[0].numpy(), ours[lowest])
    assert best is not None and found.calls == 60


@pytest.mark.paper(97, oracle="c")
@needs_cma
def test_layers_in_turn_reach_the_optimum() -> None:
    pytest.importorskip("cma")
    g = torch.Generator().manual_seed(0)
    maps = [torch.randn(12, 5, generator=g, dtype=torch.float64) for _ in range(3)]
    targets = [torch.randn(12, generator=g, dtype=torch.float64) for _ in range(3)]

    def loss(p: Sequence[Tensor]) -> float:
        return float(sum((a - t).square().sum() for a, t in zip(p, targets, strict=True)))

    best = loss([a @ torch.linalg.lstsq(a, t[:, None]).solution[:, 0] for a, t in zip(maps, targets, strict=True)])
    found = Evolution(0.2, 10, 6000, seed=3).search(loss, maps)
    assert loss(found.prompts) - best < 1e-2
    assert loss([torch.zeros(12, dtype=torch.float64)] * 3) - best > 1


@pytest.mark.paper(97, oracle="e")
@needs_cma
@pytest.mark.parametrize(("layers", "budget", "calls"), [("all", 50, 48), ("input", 50, 48), ("all", 12, 12)])
def test_calls_are_counted(layers: Any, budget: int, calls: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cma")
    tuner, seen = quick(layers=layers, budget=budget), []
    real = tuner.loss_of

    def counted(*args: Tensor) -> Tensor:
        seen.append(len(args[0]))
        return real(*args)

    monkeypatch.setattr(tuner, "loss_of", counted)
    told: list[tuple[int, int]] = []
    tuner.fit(TEXTS, LABELS, progress=lambda done, total: told.append((done, total)))
    assert tuner.found is not None
    assert seen == [len(TEXTS)] * calls and tuner.found.calls == len(tuner.found.losses) == calls
    assert told == [(i + 1, calls) for i in range(calls)]
    assert len(tuner.prompts) == (2 if layers == "all" else 1)


@pytest.mark.paper(97, oracle="g")
@needs_cma
@pytest.mark.parametrize("loss", ["cross-entropy", "hinge"])
def test_no_gradient_is_taken_and_the_loss_falls(loss: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cma")
    tuner = quick(loss=loss, budget=960, dim=12, alpha=3.0)
    tower, modes = tuner.model.tower, set()
    was = {name: t.clone() for name, t in tower.state_dict().items()}
    tower.register_forward_pre_hook(lambda *_: modes.add(torch.is_grad_enabled()))
    with torch.enable_grad():
        tuner.fit(TEXTS, LABELS)
    assert modes == {False}
    assert all(p.grad is None for p in tower.parameters())
    assert all(torch.equal(t, was[name]) for name, t in tower.state_dict().items())
    assert tuner.found is not None and min(tuner.found.losses) < 0.5 * tuner.found.losses[0]
    assert (tuner.predict(TEXTS) == np.array(LABELS)).mean() > 0.8
    again = [quick(loss=loss, budget=24).fit(TEXTS, LABELS) for _ in range(2)]
    assert torch.equal(*(one.logits(TEXTS) for one in again))


@needs_cma
def test_the_best_guess_on_held_out_examples_is_kept() -> None:
    pytest.importorskip("cma")
    dev, dev_labels = ["the story was great", "the plot is terrible"], ["good", "bad"]
    tuner = quick(budget=240, check=5)
    judged: list[float] = []
    real, y = tuner._logits, torch.tensor([0, 1])

    def watched(asked: Any, prompts: Any) -> Tensor:
        logits = real(asked, prompts)
        if len(asked) == 2:
            judged.append(float((logits.argmax(1) == y).float().mean()))
        return logits

    tuner._logits = watched  # type: ignore[method-assign]
    tuner.fit(TEXTS, LABELS, dev, dev_labels)
    assert len(judged) == 240 // 5 and tuner.score == max(judged) > min(judged)
    assert float((tuner.logits(dev).argmax(1) == y).float().mean()) == tuner.score
    with pytest.raises(BadInput, match="there are no texts"):
        tuner.predict([])


@needs_cma
def test_a_guess_without_a_number_is_passed_over() -> None:
    pytest.importorskip("cma")
    a = torch.eye(3)

    def loss(p: Sequence[Tensor]) -> float:
        return math.nan if float(p[0][0]) > 0.1 else float((p[0] + 1).square().sum())

    found = Evolution(0.3, 6, 300, seed=0).search(loss, [a])
    assert 0 < found.failed == sum(map(math.isinf, found.losses)) < 300
    assert loss(found.prompts) < 1e-2
    with pytest.raises(BadInput, match="gave no number in any call"):
        Evolution(0.3, 6, 12).search(lambda p: math.inf, [a])
    bounded = Evolution(0.3, 6, 300, bound=0.5, seed=0)
    assert float(bounded.search(loss, [a]).prompts[0].abs().max()) <= 0.5


def test_the_words_stand_in_front_and_texts_are_cut() -> None:
    tuner = quick(length=12)

    def shown(text: str) -> str:
        (prompt,) = tuner.ask([[text]])
        assert prompt.masks == (prompt.ids.index(tuner.model.tokenizer.mask_token_id),)
        return " ".join(tuner.model.tokenizer.convert_ids_to_tokens(list(prompt.ids)))

    front = " ".join(tuner.model.tokenizer.convert_ids_to_tokens([12, 13, 14]))
    assert shown("no") == f"[CLS] {front} . no . it was [MASK] . [SEP]"
    assert shown("a great film of the actors") == f"[CLS] {front} . a . it was [MASK] . [SEP]"
    with pytest.raises(BadInput, match="leaves no room for text in 8 tokens, beside 3 words in front"):
        quick(length=11).ask([["a"]])


def test_a_mask_in_a_text_is_no_question() -> None:
    tuner = quick()
    (prompt,), (plain,) = tuner.ask([["a [MASK] film"]]), tuner.ask([["a great film"]])
    assert prompt.masks == plain.masks and len(prompt.masks) == 1


@needs_cma
def test_maps_may_be_uniform_as_first_in_bbt() -> None:
    pytest.importorskip("cma")
    tuner = quick(projection="uniform", dim=25)
    maps = tuner.maps(tuner.ask([["a film"]]))
    assert len(maps) == 2 and maps[0].shape == (3 * 16, 25) and not torch.equal(*maps)
    for a in maps:
        assert 0.95 / 5 < float(a.abs().max()) <= 1 / 5 and float(a.std()) == pytest.approx(
            0.2 / math.sqrt(3), rel=0.05
        )
    assert len(quick(projection="uniform", layers="input").fit(TEXTS, LABELS).prompts) == 1
    with pytest.raises(BadInput, match="projection is 'normal' or 'uniform', not 'sparse'"):
        quick(projection="sparse")


def test_what_cannot_be_searched_is_refused() -> None:
    with pytest.raises(BadInput, match=r"a budget of 11 calls is not one round; .* 12 at least"):
        quick(budget=11).fit(TEXTS, LABELS)
    with pytest.raises(BadInput, match="popsize is 2 at least"):
        Evolution(popsize=1)
    with pytest.raises(BadInput, match="the seed of a search is 0 or more, not -1"):
        Evolution(seed=-1)
    with pytest.raises(BadInput, match="bound must be above 0"):
        Evolution(bound=0)
    with pytest.raises(BadInput, match="not a seq2seq one"):
        quick("seq2seq")
    with pytest.raises(BadInput, match="has no 50 ordinary words from number 1000"):
        quick(first_token=1000, prompt_tokens=50)
    with pytest.raises(BadInput, match="has no 3 ordinary words from number 4"):
        quick(first_token=4)
    with pytest.raises(BadInput, match="layers is all or input"):
        quick(layers="top")
    with pytest.raises(BadInput, match="one \\*mask\\* for a masked model"):
        quick(template="*cls**sent_0**sep+*")
    with pytest.raises(BadInput, match="alpha above 0"):
        quick(alpha=0.0)
    with pytest.raises(BadInput, match="6 and 0 texts, but 5 and 0 labels"):
        quick().fit(TEXTS, LABELS[:5])
    with pytest.raises(BadInput, match="label 'meh' has no word"):
        quick().fit(TEXTS, [*LABELS[:5], "meh"])
    with pytest.raises(BadInput, match="has not been fitted"):
        quick().logits(TEXTS)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "cma", None)
    with pytest.raises(BadInput, match=r"needs the package cma; run: pip install \"handful\[blackbox\]\""):
        quick().fit(TEXTS, LABELS)
