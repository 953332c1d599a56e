"""037's other modes of tuning: a network on mean states, and a prompt of plain tokens that gradients find."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_lm
import torch
from torch import Tensor, nn

from handful.errors import BadInput
from handful.generate.prompt_search import PromptSearch, replacements
from handful.generate.rephrased import RephrasedClassifier, Score, VotedMean
from handful.tune.recipe import Seen

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "riff_modes.json").read_text(encoding="utf-8"))
TEXTS = ["a great film.", "the story is great", "a terrible plot", "the actors are dull"]
LABELS = ["pos", "pos", "neg", "neg"]
CODES = torch.tensor([1, 1, 0, 0])
TEMPLATES = {"masked": "*cls**sent_0*_._it_was*mask*_.*sep*", "causal": "*sent_0*_. it was"}
WORDS = {"neg": "bad", "pos": "good"}


def alike(texts: Sequence[str]) -> list[list[str]]:
    return [[text] * 3 for text in texts]


def shorter(texts: Sequence[str]) -> list[list[str]]:
    return [[text.split()[-1], f"very {text.split()[-1]}"] for text in texts]


def drawn() -> tuple[torch.Generator, list[Tensor], Tensor, Tensor, Tensor]:
    """What the golden file says was drawn first: parameters, mean states, labels."""
    g = torch.Generator().manual_seed(0)
    parameters = [torch.randn(shape, generator=g) for shape in ((5, 4), (5,), (3, 5), (3,))]
    h, lengths = torch.randn(6, 7, 4, generator=g), torch.randint(2, 8, (6,), generator=g)
    mask = (torch.arange(7) < lengths[:, None]).float()[..., None]
    return g, parameters, (h * mask).sum(1) / mask.sum(1), h, torch.randint(3, (2,), generator=g)


@pytest.mark.paper(37, oracle="c", part="modes")
def test_the_network_is_that_of_the_authors_code(monkeypatch: pytest.MonkeyPatch) -> None:
    _, parameters, mean, _, y = drawn()
    readout = VotedMean(5)
    for name, value in zip(("w1", "b1", "w2", "b2"), parameters, strict=True):
        setattr(readout, name, nn.Parameter(value))
    for rows, key in ((mean.view(2, 3, 4), "augmented"), (mean[:2, None], "plain")):
        monkeypatch.setattr(VotedMean, "mean", lambda self, model, inputs, rows=rows: rows)
        log_p = readout.look(nn.Identity(), [])
        if key == "augmented":
            torch.testing.assert_close(log_p.detach().flatten(0, 1), torch.tensor(GOLDEN["log_p"]))
        else:
            readout.by = "original"
        targets = torch.nn.functional.one_hot(y, 3).float()
        seen = Seen(nn.Identity(), readout, y, [], targets, torch.ones(2), 0, 1, torch.Generator())
        assert float(Score()(seen).detach()) == pytest.approx(GOLDEN[key], abs=1e-6)


@pytest.mark.paper(37, oracle="c", part="modes")
def test_words_are_tried_as_in_the_authors_code() -> None:
    g = drawn()[0]
    table, a = torch.randn(12, 4, generator=g), torch.randn(3, 4, generator=g)
    prompt = [5, 2, 9]
    s = (table[prompt] * a).sum()
    for case in GOLDEN["candidates"]:
        place = case["place"]
        slope = (1 - s.tanh() ** 2) * a[place]
        assert replacements(table, slope, prompt[place], 4) == case["words"]
    assert any(case["words"] for case in GOLDEN["candidates"])


def searching(kind: str, rewrites: Any = None, **settings: Any) -> PromptSearch:
    how: dict[str, Any] = {"start": "the review is", "epochs": 3, "batch": 4, **settings}
    return PromptSearch(tiny_lm.tiny(kind), TEMPLATES[kind], WORDS, rewrites, **how)


@pytest.mark.paper(37, oracle="a", part="modes")
@pytest.mark.parametrize("kind", ["masked", "causal"])
def test_rewrites_that_are_the_text_change_nothing(kind: str) -> None:
    own, plain = (searching(kind, rewrites).fit(TEXTS, LABELS) for rewrites in (alike, None))
    assert own.found == plain.found
    torch.testing.assert_close(own.scores(TEXTS), plain.scores(TEXTS), atol=1e-6, rtol=0)
    how: dict[str, Any] = {"epochs": 5, "lr": 1e-3, "batch": 2, "hidden": 8}
    net, bare = (RephrasedClassifier(tiny_lm.tiny(kind), TEMPLATES[kind], WORDS, r, **how) for r in (alike, None))
    net.fit(TEXTS, LABELS), bare.fit(TEXTS, LABELS)
    assert net.tuned is not None and bare.tuned is not None
    np.testing.assert_allclose(net.tuned.losses, bare.tuned.losses, atol=1e-5)
    for by in ("both", "original", "rewrites"):
        torch.testing.assert_close(net.scores(TEXTS, by), bare.scores(TEXTS), atol=1e-5, rtol=1e-5)  # type: ignore[arg-type]


def test_the_network_alone_learns_and_the_model_stays() -> None:
    classifier = RephrasedClassifier(
        tiny_lm.tiny("roberta"), TEMPLATES["masked"], WORDS, shorter, lr=1e-2, epochs=40, batch=4, hidden=16, alpha=0.3
    )
    with pytest.raises(BadInput, match="not been fitted"):
        classifier.scores(TEXTS)
    classifier.fit(TEXTS, LABELS)
    assert classifier.tuned is not None and not classifier.tuned.delta.trainable()
    assert list(classifier.predict(TEXTS)) == LABELS
    both, one, rest = (classifier.scores(TEXTS, by) for by in ("both", "original", "rewrites"))  # type: ignore[arg-type]
    torch.testing.assert_close(both, 0.3 * one + 0.7 * rest)
    torch.testing.assert_close(classifier.believes(TEXTS).exp().sum(1), torch.ones(4))
    prompts = [classifier._items([text], False)[0][0] for text in TEXTS]
    with torch.no_grad():
        h = torch.stack([classifier.model.tower.mean([prompt])[0] for prompt in prompts])
    net: Any = classifier.tuned.readout
    want = (torch.nn.functional.gelu(h @ net.w1.mT + net.b1) @ net.w2.mT + net.b2).log_softmax(-1)
    torch.testing.assert_close(one, want.detach(), atol=1e-5, rtol=1e-5)


def test_the_slope_is_that_of_the_words_row_where_it_stands_alone() -> None:
    """With a table of its own for the head and a word that is nowhere else, it is the gradient of the table's row."""
    search = searching("causal", shorter)
    model = search.model = tiny_lm.tiny("causal", tie_word_embeddings=False)
    prompt = tuple(model.tokenizer.encode("news about yes", add_special_tokens=False))
    items = search._items(TEXTS, len(prompt))
    table = model.tower.body.get_input_embeddings().weight.requires_grad_()
    everywhere = [token for item in items for q in item for token in q.ids] + list(prompt)
    places = [p for p, token in enumerate(prompt) if everywhere.count(token) == 1]
    assert places
    (row,) = torch.autograd.grad(search._likelihood(prompt, items, CODES, grad=True), table)
    for place in places:
        torch.testing.assert_close(search.slope(prompt, place, items, CODES), row[prompt[place]], atol=1e-7, rtol=1e-4)


def test_no_step_makes_it_worse() -> None:
    search = searching("masked", shorter, beam=2, top=6)
    generator = torch.Generator().manual_seed(0)
    prompts = [search._start(generator)]
    items = search._items(TEXTS, len(prompts[0]))
    before = [float(search._likelihood(prompts[0], items, CODES))]
    for _ in range(8):
        prompts = search.step(prompts, items, CODES, generator)
        scores = [float(search._likelihood(one, items, CODES)) for one in prompts]
        assert scores == sorted(scores, reverse=True) and len(set(prompts)) == len(prompts) <= 2
        before.append(scores[0])
    assert before == sorted(before) and before[-1] > before[0] + 0.1
    found = search.fit(TEXTS, LABELS)
    assert found.found is not None and len(found.found) == len(prompts[0]) and found.prompt


def test_the_prompt_stands_behind_the_first_token_and_the_best_is_kept() -> None:
    search = searching("masked").fit(TEXTS, LABELS)
    assert search.found is not None
    model, tokens = search.model, search.found
    ids = model.tokenizer.encode("a great film . it was [MASK] .")
    asked = model.tokenizer.decode([ids[0], *tokens, *ids[1:]])
    log_p = model.mask_logits([model.prompt(asked.replace("[CLS] ", "").replace(" [SEP]", ""))]).log_softmax(-1)
    want = log_p[0, [model.tokenizer.vocab["bad"], model.tokenizer.vocab["good"]]]
    torch.testing.assert_close(search.believes(["a great film."])[0], want, atol=1e-5, rtol=1e-5)
    kept = searching("masked", epochs=8, check=1)
    dev, wrong = TEXTS[:2], ["neg", "neg"]
    kept.fit(TEXTS, LABELS, dev, wrong)
    last = searching("masked", epochs=8).fit(TEXTS, LABELS)
    agreed = [(one.predict(dev, "original") == np.array(wrong)).sum() for one in (kept, last)]
    assert agreed[0] >= agreed[1]
    drawn_ = searching("masked", start="", tokens=5)._start(torch.Generator().manual_seed(1))
    assert len(drawn_) == 5 and not set(drawn_) & set(search.model.tokenizer.all_special_ids)


def test_bad_input() -> None:
    for how, message in [
        ({"top": 0}, "are 1 at least"), ({"alpha": 2}, "alpha is a share"), ({"tokens": 0}, "are 1 at least"),
    ]:  # fmt: skip
        with pytest.raises(BadInput, match=message):
            searching("masked", **how)
    with pytest.raises(BadInput, match="must ask a masked model at its"):
        PromptSearch(tiny_lm.tiny("masked"), "*sent_0*", WORDS)
    with pytest.raises(BadInput, match="must be two at least, and differ"):
        PromptSearch(tiny_lm.tiny("masked"), TEMPLATES["masked"], {"a": "good"})
    with pytest.raises(BadInput, match="call fit"):
        searching("masked").predict(TEXTS)
    with pytest.raises(BadInput, match="label 'new' has no word"):
        searching("masked").fit(TEXTS, ["new"] * 4)
    with pytest.raises(BadInput, match="no room for text"):
        searching("masked", start="film " * 60).fit(TEXTS, LABELS)
    with pytest.raises(BadInput, match="hidden is a number of units"):
        RephrasedClassifier(tiny_lm.tiny("masked"), TEMPLATES["masked"], WORDS, None, hidden=0)
