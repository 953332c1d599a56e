"""PERFECT (078): masks behind the text, label embeddings, prototypes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_lm
import torch
from torch import Tensor, nn

from handful.encode.lm import LanguageModel
from handful.errors import BadInput
from handful.tune import Delta, Placed, Where, load_delta, save_delta
from handful.tune.adapters import Adapter
from handful.tune.perfect import (
    LabelEmbeddings,
    MaskStates,
    PerfectClassifier,
    PerMask,
    masked,
    nearest_prototype,
)
from handful.tune.recipe import Seen

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "perfect.json").read_text(encoding="utf-8"))
TEXTS = ["a great film", "great actors", "it was great", "a terrible film", "terrible actors", "it was terrible"]
LABELS = ["good", "good", "good", "bad", "bad", "bad"]
DEV, DEV_LABELS = ["the story was great", "the plot is terrible"], ["good", "bad"]


def quick(**options: Any) -> PerfectClassifier:
    settings = {"steps": 60, "lr": 0.005, "embedding_lr": 0.05, "batch": 6, "check": 20, "reduction": 4} | options
    return PerfectClassifier(tiny_lm.tiny("masked"), **settings)  # type: ignore[arg-type]


def seeded() -> tuple[Tensor, LabelEmbeddings, Tensor]:
    g = torch.Generator().manual_seed(0)
    h, e = torch.randn(3, 2, 5, generator=g), torch.randn(4, 2, 5, generator=g)
    readout = LabelEmbeddings()
    readout.weight = nn.Parameter(e)
    return h, readout, torch.randint(4, (3,), generator=g)


def seen(h: Tensor, readout: LabelEmbeddings, labels: Tensor, ways: int) -> Any:
    targets = torch.nn.functional.one_hot(labels, ways).float()
    made = Seen(None, readout, None, None, targets, torch.ones(len(h)), 0, 1, torch.Generator())  # type: ignore[arg-type]
    made.__dict__["features"] = h
    return made


@pytest.mark.paper(78, oracle="d")
def test_each_mask_meets_its_own_embedding() -> None:
    h, readout, labels = seeded()
    torch.testing.assert_close(readout.per_mask(h), torch.tensor(GOLDEN["per_mask"]), atol=1e-4, rtol=0)
    torch.testing.assert_close(readout(h, nn.Identity()), torch.tensor(GOLDEN["mean"]), atol=1e-4, rtol=0)
    for kind in ("hinge", "cross-entropy"):
        loss = PerMask(kind)(seen(h, readout, labels, 4))  # type: ignore[arg-type]
        assert float(loss.detach()) == pytest.approx(GOLDEN[kind], abs=1e-5)


@pytest.mark.paper(78, oracle="a")
def test_the_hinge_by_hand() -> None:
    readout = LabelEmbeddings()
    readout.weight = nn.Parameter(torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]], [[0.5, 0.5]]]))
    h = torch.tensor([[[2.0, 1.5]]])  # s = 2, 1.5, 1.75
    loss = PerMask()(seen(h, readout, torch.tensor([0]), 3))
    assert float(loss.detach()) == pytest.approx(((1 - 2 + 1.5) + (1 - 2 + 1.75)) / 3)


@pytest.mark.paper(78, oracle="b")
@pytest.mark.parametrize("over", ["max", "mean", "min", "sum"])
@pytest.mark.parametrize("similarity", ["euclidean", "cosine"])
def test_one_mask_is_the_nearest_centroid(over: Any, similarity: str) -> None:
    from sklearn.neighbors import NearestCentroid
    from sklearn.preprocessing import normalize

    rng = np.random.default_rng(0)
    x, y, q = rng.standard_normal((30, 6)), np.arange(30) % 3, rng.standard_normal((50, 6))
    means = np.stack([x[y == c].mean(0) for c in range(3)])
    theirs = NearestCentroid().fit(normalize(means), np.arange(3)).predict(normalize(q))
    ours = nearest_prototype(torch.tensor(q)[:, None], torch.tensor(means)[:, None], similarity, over)
    assert (ours.argmax(1).numpy() == theirs).all()


def test_masks_are_joined_as_asked() -> None:
    h = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    p = torch.tensor([[[1.0, 0.0], [1.0, 0.0]], [[0.0, 3.0], [0.0, 2.0]]])
    far = float(np.exp(-2))
    for over, expected in {"max": [1, 1], "min": [far, far], "sum": [1 + far] * 2, "mean": [(1 + far) / 2] * 2}.items():
        torch.testing.assert_close(nearest_prototype(h, p, over=over), torch.tensor([expected], dtype=torch.float32))  # type: ignore[arg-type]


@pytest.mark.paper(78, oracle="c")
def test_a_bottleneck_that_adds_nothing_changes_nothing(tmp_path: Path) -> None:
    model = tiny_lm.tiny("masked")
    states = MaskStates(model.tower.body, 2, 0).eval()
    prompts = [masked(model.tokenizer, [text], 2) for text in TEXTS]
    before = states(prompts).detach()
    change = Adapter(reduction=4, activation="gelu-tanh", begins="linear")
    delta = Delta.begin(states, [Placed(change, Where(("down",)))], torch.Generator().manual_seed(0))
    with delta.attached(states), torch.no_grad():
        changed = states(prompts)
    assert (changed - before).abs().max() > 1e-3  # it does not begin as the identity
    save_delta(delta, tmp_path / "d")
    with load_delta(tmp_path / "d", states).attached(states), torch.no_grad():
        torch.testing.assert_close(states(prompts), changed)
    with torch.no_grad():
        for holder in delta.holders:
            holder.U.zero_()
            holder.e.zero_()
    with delta.attached(states), torch.no_grad():
        torch.testing.assert_close(states(prompts), before, atol=1e-6, rtol=0)
    ids = torch.tensor([prompts[0].ids])
    with torch.no_grad():
        h = model.tower.body.bert(ids).last_hidden_state[0]
    torch.testing.assert_close(before[0], h[list(prompts[0].masks)], atol=1e-5, rtol=1e-5)
    with pytest.raises(BadInput, match="has no weight form"):
        delta.merge(states)


@pytest.mark.parametrize("activation", ["gelu-tanh", "relu", "identity"])
def test_a_bottleneck_is_two_maps(activation: Any) -> None:
    torch.manual_seed(0)
    outer = nn.Sequential(nn.Linear(3, 8))
    change = Adapter(width=2, activation=activation, biases=activation != "identity", begins="normal", std=0.5)
    delta = Delta.begin(outer, [Placed(change, Where(sites=("0",)))], torch.Generator().manual_seed(0))
    holder, x = delta.holders[0], torch.randn(5, 3)
    y = outer(x)
    act = {"gelu-tanh": nn.GELU("tanh"), "relu": nn.ReLU(), "identity": nn.Identity()}[activation]
    with delta.attached(outer):
        torch.testing.assert_close(outer(x), y + act(y @ holder.D.T) @ holder.U.T)
    assert delta.trainable() == 32 + (10 if activation != "identity" else 0)


@pytest.mark.paper(78, oracle="e")
def test_what_learns_is_counted_and_the_rest_stays() -> None:
    model = quick()
    was = {name: t.clone() for name, t in model.model.tower.body.state_dict().items()}
    model.fit(TEXTS, LABELS, DEV, DEV_LABELS)
    assert model.tuned is not None
    bottlenecks = 2 * (2 * 16 * 4 + 4 + 16)  # layers, D and U, biases
    norms = 5 * 2 * 16
    assert model.tuned.delta.trainable() == bottlenecks + norms
    assert sum(p.numel() for p in model.tuned.readout.parameters()) == 2 * 2 * 16
    assert all(torch.equal(t, was[name]) for name, t in model.model.tower.body.state_dict().items())
    assert model.predict(TEXTS).tolist() == LABELS


@pytest.mark.parametrize("answer", ["prototypes", "embeddings"])
def test_any_encoder_with_a_mask_will_do(answer: Any) -> None:
    with_head = tiny_lm.tiny("masked")
    bare = LanguageModel(with_head.tower.body.bert, with_head.tokenizer, "masked")
    kept = quick(answer=answer).fit(TEXTS, LABELS)
    found = PerfectClassifier(bare, steps=60, lr=0.005, embedding_lr=0.05, batch=6, reduction=4, answer=answer)
    torch.testing.assert_close(found.fit(TEXTS, LABELS).scores(DEV), kept.scores(DEV))
    assert found.predict(TEXTS).tolist() == LABELS


def test_text_is_shortened_and_masks_are_not() -> None:
    tokenizer = tiny_lm.word_tokenizer()

    def shown(texts: list[str], masks: int = 2, **options: int) -> str:
        prompt = masked(tokenizer, texts, masks, **options)
        assert len(prompt.masks) == masks
        return " ".join(tokenizer.convert_ids_to_tokens(list(prompt.ids)))

    assert shown(["a great film"]) == "[CLS] a great film [MASK] [MASK] [SEP]"
    pair = ["a film", "it was great"]
    assert shown(pair, 1) == "[CLS] a film [MASK] it was great [SEP]"
    assert shown(pair, 1, position=0) == "[CLS] a film it was great [MASK] [SEP]"
    assert shown(pair, 1, position=2) == "[CLS] a film [SEP] [MASK] it was great [SEP]"
    assert shown(pair, 1, position=3) == "[CLS] a film [SEP] it was great [MASK] [SEP]"
    assert masked(tokenizer, pair, 1, position=3).segments == (0, 0, 0, 0, 1, 1, 1, 1, 1)
    assert shown(pair, 1, most=6) == "[CLS] a film [MASK] it [SEP]"
    assert shown(pair, 1, most=6, position=2) == "[CLS] a [SEP] [MASK] it [SEP]"
    assert shown(["a great film of the actors"], 2, most=6) == "[CLS] a great [MASK] [MASK] [SEP]"


@pytest.mark.parametrize("case", GOLDEN["shortened"], ids=str)
def test_texts_are_shortened_as_by_the_authors(case: list[int]) -> None:
    several, position, masks, most, *words, first, second = case
    tokenizer = tiny_lm.word_tokenizer()
    texts = [" ".join([word] * n) for word, n in zip(("film", "plot"), words, strict=True)][:several]
    prompt = masked(tokenizer, texts, masks, position=position, most=most)
    tokens = tokenizer.convert_ids_to_tokens(list(prompt.ids))
    assert (tokens.count("film"), tokens.count("plot")) == (first, second)
    assert [tokens[at] for at in prompt.masks] == ["[MASK]"] * masks


@pytest.mark.parametrize("position", range(4))
def test_a_mask_in_a_text_is_no_question(position: int) -> None:
    tokenizer = tiny_lm.word_tokenizer()
    pair = ["a [MASK] film", "it was [MASK]"]
    prompt = masked(tokenizer, pair, 2, position=position)
    plain = masked(tokenizer, ["a good film", "it was bad"], 2, position=position)
    assert prompt.masks == plain.masks and len(prompt.ids) == len(plain.ids)
    assert quick(steps=2).fit(TEXTS, LABELS).scores(["a [MASK] film"]).shape == (1, 2)


def test_what_cannot_be_learnt_is_refused() -> None:
    tokenizer = tiny_lm.word_tokenizer()
    with pytest.raises(BadInput, match="leave no room for text"):
        masked(tokenizer, ["a film"], 5, most=7)
    with pytest.raises(BadInput, match="one mask at least"):
        masked(tokenizer, ["a film"], 0)
    with pytest.raises(BadInput, match="no mask token"):
        masked(tiny_lm.gap_tokenizer(), ["a film"], 1)
    with pytest.raises(BadInput, match="1 classes: at least two"):
        quick().fit(TEXTS[:3], LABELS[:3])
    with pytest.raises(BadInput, match="held-out label 'meh' has no example"):
        quick().fit(TEXTS, LABELS, ["a"], ["meh"])
    for nothing in (None, float("nan")):
        with pytest.raises(BadInput, match="text 5 has no label"):
            quick().fit(TEXTS, [*LABELS[:5], nothing])
    with pytest.raises(BadInput, match="the readout's rate must not be negative: nan"):
        quick(embedding_lr=float("nan")).fit(TEXTS, LABELS)
    with pytest.raises(BadInput, match="there are no texts"):
        quick(steps=1).fit(TEXTS, LABELS).predict([])
    with pytest.raises(BadInput, match="item 0 is 'nan', a float: give a text"):
        quick().fit([float("nan"), *TEXTS[1:]], LABELS)  # type: ignore[list-item]
    with pytest.raises(BadInput, match="6 and 0 texts, but 5 and 0 labels"):
        quick().fit(TEXTS, LABELS[:5])
    with pytest.raises(BadInput, match="has not been fitted"):
        quick().scores(TEXTS)
    with pytest.raises(BadInput, match="the loss is 'hinge' or"):
        quick(loss="margin").fit(TEXTS, LABELS)
    with pytest.raises(BadInput, match="answer is 'prototypes' or"):
        quick(answer="words").fit(TEXTS, LABELS)
    with pytest.raises(BadInput, match="over is max"):
        quick(over="median")
    with pytest.raises(BadInput, match="no activation 'tanh'; did you mean"):
        Adapter(activation="tanh")  # type: ignore[arg-type]
