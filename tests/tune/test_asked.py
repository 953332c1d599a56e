"""Prompt methods as recipes: the same as their classes in Python, and kept in files as plain values."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import tiny_lm
import torch
from torch.nn import functional

from handful.encode.asking import Answers, Asking, Levels, Masks, Words, asking_of
from handful.encode.lm import LanguageModel
from handful.encode.reading import reading_of
from handful.encode.speaker import LanguageEncoder, Speaker
from handful.errors import BadInput
from handful.tune import Data, Tuned, tune
from handful.tune.asked import TEMPLATES
from handful.tune.encoders import as_file, encoder_with, tuned_encoder
from handful.tune.in_context import InContext
from handful.tune.lm_bff import PromptClassifier
from handful.tune.perfect import PerfectClassifier
from handful.tune.recipes import RECIPES, asks, recipe
from handful.tune.t_few import TFew, TFewClassifier

TEXTS = ["a great film", "great actors", "it was great , moving", "a terrible film", "terrible actors", "it was bad"]
LABELS = ["good"] * 3 + ["bad"] * 3
CODES = torch.tensor([1, 1, 1, 0, 0, 0])
NEW = ["the film is great", "a dull plot , not moving", "news about it"]
KINDS = ["masked", "causal", "seq2seq"]
SHORT = {"masked": "*cls**sent_0*_it_was*mask*.*sep+*", "causal": "*sent_0*_it_was", "seq2seq": "*sent_0*_it_was*sep*"}


def learnt(model: LanguageModel, key: str, **settings: Any) -> tuple[Speaker, Tuned]:
    """By the recipe, from texts."""
    tower = Speaker(model).eval()
    data = Data(TEXTS, CODES, ("bad", "good"), documents=["terrible", "great"])
    return tower, tune(tower, data, recipe(key, **settings), seed=3)


@pytest.mark.parametrize("kind", KINDS)
def test_lm_bff_is_the_class_in_python(kind: str) -> None:
    how: dict[str, Any] = {"steps": 4, "lr": 1e-2, "batch": 4}
    theirs = PromptClassifier(
        tiny_lm.tiny(kind), SHORT[kind], {"bad": "terrible", "good": "great"}, seed=3, **how
    ).fit(TEXTS, LABELS)  # fmt: skip
    _, ours = learnt(tiny_lm.tiny(kind), "lm-bff", template=SHORT[kind], **how)
    torch.testing.assert_close(ours.logits(NEW), theirs.logits(NEW), atol=1e-5, rtol=1e-5)
    assert ours.losses == pytest.approx(theirs.tuned.losses, abs=1e-6)  # type: ignore[union-attr]
    assert ours.delta.trainable() == theirs.tuned.delta.trainable()  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", KINDS)
def test_t_few_is_the_class_in_python(kind: str) -> None:
    """The causal and the seq2seq model have gates: scaled behind them here, before them there, which is the same."""
    model = tiny_lm.tiny(kind)
    words = {"bad": "terrible", "good": "very good"}
    theirs = TFewClassifier(
        model, [SHORT[kind]], TFew(steps=5, batch=4), seed=3, most=48
    ).fit(TEXTS, [words[label] for label in LABELS], list(words.values()))  # fmt: skip
    tower = Speaker(tiny_lm.tiny(kind)).eval()
    data = Data(TEXTS, CODES, tuple(words), documents=list(words.values()))
    ours = tune(tower, data, recipe("t-few", template=SHORT[kind], steps=5, batch=4), seed=3)
    torch.testing.assert_close(ours.logits(NEW), theirs.logits(NEW, list(words.values())), atol=2e-4, rtol=1e-4)
    assert ours.delta.trainable() == theirs.tuned.delta.trainable()  # type: ignore[union-attr]


def test_perfect_is_the_class_in_python() -> None:
    how: dict[str, Any] = {"steps": 4, "lr": 1e-2, "batch": 4, "reduction": 4}
    theirs = PerfectClassifier(tiny_lm.tiny("masked"), seed=3, **how).fit(TEXTS, LABELS)
    tower, ours = learnt(tiny_lm.tiny("masked"), "perfect", **how)
    with torch.no_grad(), ours.delta.attached(tower):
        shipped = ours.readout.ships(tower)
        assert shipped is not None and isinstance(shipped.reading, Masks)
        found = shipped.reading.logits(shipped.reading.look(tower.model, NEW))
    torch.testing.assert_close(found, theirs.scores(NEW), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(shipped.weight, torch.eye(2))


@pytest.mark.parametrize("kind", ["causal", "seq2seq"])
def test_in_context_is_the_class_in_python(kind: str) -> None:
    model = tiny_lm.tiny(kind, max_position_embeddings=200) if kind == "causal" else tiny_lm.tiny(kind)
    model.most = 200
    words = ["terrible", "great"]
    theirs = InContext(model, SHORT[kind], shots=4, separator="\n", seed=5)
    theirs.fit(TEXTS, [words[c] for c in CODES.tolist()], words)
    tower, ours = learnt(model, "in-context", template=SHORT[kind], shots=4, separator="\n", seed=5)
    torch.testing.assert_close(ours.logits(NEW), theirs.logits(NEW, words))
    assert not ours.delta.trainable() and not ours.losses
    shipped = ours.readout.ships(tower)
    assert shipped is not None and isinstance(shipped.reading, Answers)
    assert [text for text, _ in shipped.reading.shown] == [TEXTS[row] for row in theirs.shown or ()]
    with pytest.raises(BadInput, match="9 examples are to be shown, but there are 6"):
        learnt(model, "in-context", shots=9)


def encoder(kind: str) -> LanguageEncoder:
    return LanguageEncoder(tiny_lm.tiny(kind), None, "tiny")


@pytest.mark.parametrize("kind", KINDS)
def test_by_itself_a_text_is_the_mean_of_its_states(kind: str) -> None:
    made = encoder(kind)
    found = made.encode(NEW, cache=False)
    for row, text in zip(found, NEW, strict=True):
        model = made.tower().model
        ids = torch.tensor([model.tokenizer.encode(text)])
        body: Any = model.tower.body
        reads = body.get_encoder() if kind == "seq2seq" else body.base_model
        with torch.no_grad():
            want = functional.normalize(reads(input_ids=ids).last_hidden_state[0].mean(0), dim=0)
        torch.testing.assert_close(torch.tensor(row), want, atol=1e-5, rtol=1e-5)
    assert made.truncated(["film " * 60, "film"]).tolist() == [True, False]
    with pytest.raises(BadInput, match="no space that class names share"):
        made.class_text(["a"])


@pytest.mark.parametrize(
    ("kind", "key"),
    [*((kind, "lm-bff:steps=3,lr=1e-2,batch=4") for kind in KINDS), ("masked", "perfect:steps=3,batch=4"),
     ("seq2seq", "t-few:steps=3,batch=4"), ("seq2seq", "in-context:shots=1"),
     ("masked", "lm-bff:steps=3,learns=lora"), ("masked", "lm-bff:steps=3,learns=bias"),
     ("masked", "hierverb:epochs=2,rows_lr=1e-2")],
)  # fmt: skip
def test_a_file_gives_the_encoder_again(kind: str, key: str) -> None:
    base = encoder(kind)
    tower = base.tower()
    before = {name: t.clone() for name, t in tower.state_dict().items()}
    data = Data(TEXTS, CODES, ("bad", "good"), documents=["terrible", "great"])
    found = tune(tower, data, recipe(key))
    with torch.no_grad(), found.delta.attached(tower):
        shipped = found.readout.ships(tower)
    assert shipped is not None
    made = tuned_encoder(base, tower, found.delta, shipped.reading)
    assert made.outputs == {"pooled"} and made.dim == 2 and made.identity != base.identity
    here = made.encode(NEW, cache=False)
    if not isinstance(shipped.reading, Masks):
        torch.testing.assert_close(torch.tensor(here), found.logits(NEW), atol=1e-5, rtol=1e-5)
    described, tensors = as_file(found.delta, shipped.reading)
    again = encoder_with(base, described, tensors)
    torch.testing.assert_close(torch.tensor(again.encode(NEW, cache=False)), torch.tensor(here), atol=0, rtol=0)
    assert again.identity == made.identity
    alone = torch.tensor(again.encode(NEW[:1], cache=False))
    torch.testing.assert_close(alone, torch.tensor(here[:1]), atol=1e-5, rtol=1e-5)
    assert all(torch.equal(t, before[name]) for name, t in tower.state_dict().items())  # the base is as it was


def test_askings_are_read_back() -> None:
    shown = (("a film", "good"), ("the plot", "bad"))
    for one in (
        Words("*sent_0*_is*mask*", ("a", "b"), 20), Answers("*sent_0*_is", ("a", "very b"), 0.5, 30, shown, ";"),
        Masks(torch.ones(2, 1, 4), "cosine", "mean", 9), Levels(torch.ones(3, 4), 2, 30),
    ):  # fmt: skip
        again = reading_of(one.described(), one.tensors())
        assert isinstance(one, Asking) and type(again) is type(one) and again.described() == one.described()
    assert asking_of({"kind": "late-interaction"}, {}) is None


@pytest.mark.parametrize(
    ("change", "tensors"),
    [({"words": ["a", 3]}, {}), ({"words": []}, {}), ({"template": None}, {}), ({"length": "9"}, {}), ({"more": 1}, {}),
     ({"length": 0}, {}), ({}, {"prototypes": torch.ones(2)})],
)  # fmt: skip
def test_a_damaged_asking_is_refused(change: dict[str, Any], tensors: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match="how the language model is asked makes no sense"):
        reading_of({**Words("*sent_0*", ("a", "b")).described(), **change}, tensors)


@pytest.mark.parametrize(
    "change", [{"shown": [["a"]]}, {"shown": [["a", 1]]}, {"shown": "ab"}, {"answers": ["a", None]}]
)
def test_damaged_examples_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match="how the language model is asked makes no sense"):
        reading_of({**Answers("*sent_0*", ("a", "b")).described(), **change}, {})


@pytest.mark.parametrize(("rows", "depth"), [(torch.ones(3), 2), (torch.tensor([[float("nan")]]), 2)])
def test_damaged_rows_are_refused(rows: torch.Tensor, depth: Any) -> None:
    with pytest.raises(BadInput, match="must be finite"):
        reading_of({"kind": "levels", "depth": depth}, {"rows": rows})
    with pytest.raises(BadInput, match="the depth of a tree is a number of levels"):
        reading_of({"kind": "levels", "depth": "2"}, {"rows": torch.ones(3, 4)})


def test_what_a_model_cannot_be_asked_is_refused() -> None:
    long = Answers("*sent_0*_it_was", ("great", "bad"), shown=(("a film " * 30, "bad"),))
    for asking, kind, message in [
        (Words(SHORT["causal"], ("great", "bad")), "masked", "has no mask; put"),
        (Words(SHORT["masked"], ("great", "bad")), "causal", "a causal model knows none"),
        (Words(SHORT["masked"], ("great", "very good")), "masked", "'very good' is 2 tokens; take a shorter one"),
        (replace(long, template=SHORT["masked"]), "masked", "not prompted with examples"),
        (long, "causal", "examples shown are .* tokens, and the model reads 48: show fewer"),
    ]:
        with pytest.raises(BadInput, match=message):
            asking.look(tiny_lm.tiny(kind), NEW)
    for key, kind, message in [
        ("perfect", "causal", "take a masked model, not a causal one"), ("perfect", "seq2seq", "not a seq2seq one"),
        ("lm-bff:learns=norms", "masked", "learns is one of all, lora, bias"),
        ("in-context:shots=-1", "causal", "shots is a number"),
    ]:  # fmt: skip
        with pytest.raises(BadInput, match=message):
            learnt(tiny_lm.tiny(kind), key)
    with pytest.raises(BadInput, match="asks a language model, and a Linear is none"):
        tune(torch.nn.Linear(2, 2), Data(torch.ones(2, 2), torch.tensor([0, 1])), recipe("lm-bff"))
    plain = encoder("masked")
    with pytest.raises(BadInput, match="of another kind of model"):
        late = reading_of(
            {"kind": "late-interaction"},
            {"projection": torch.ones(2, 2), "documents": torch.ones(2, 1, 2), "mask": torch.ones(2, 1)},
        )
        tower = plain.tower()
        tuned_encoder(plain, tower, learnt(tower.model, "lm-bff", steps=1)[1].delta, late)


def test_settings_may_hold_commas() -> None:
    made = recipe("lm-bff:template=*sent_0*,_it_was*mask*,steps=7,lr=0.5").readout
    assert made is not None and made().make.keywords["template"] == "*sent_0*,_it_was*mask*"  # type: ignore[attr-defined]
    assert {key for key in RECIPES if asks(key)} == {"hierverb", "in-context", "lm-bff", "perfect", "t-few"}
    assert set(TEMPLATES) == set(KINDS)
