"""MixPro (106): mixed word embeddings, mixed states, many templates."""

from __future__ import annotations

from typing import Any, cast

import pytest
import tiny_lm
import torch
from torch import Tensor, nn

from handful.encode.language_tower import LanguageTower
from handful.encode.prompt import Prompt
from handful.encode.template import Template
from handful.errors import BadInput
from handful.tune import mixpro
from handful.tune.mixpro import Level, MixedLoss, MixProClassifier, Worded, Wordings, mixed, shares
from handful.tune.prompting import Words
from handful.tune.recipe import Seen

TEXTS = ["a great film", "great actors", "it was a great story", "a terrible film", "terrible actors", "terrible plot"]
LABELS = ["good", "good", "good", "bad", "bad", "bad"]
TEMPLATES = ("*cls**sent_0*_It_was*mask*.*sep+*", "*cls*very*mask*:*sent_0**sep+*", "*cls**sent_0*.*mask*_review*sep+*")
WORDS = {"good": "good", "bad": "bad"}


def wordings(kind: str = "masked", **options: Any) -> Wordings:
    model = tiny_lm.tiny(kind)
    templates = TEMPLATES if kind != "causal" else ("*cls**sent_0*_It_was*",)
    return Wordings(model, tuple(map(Template, templates)), **options)


def seen_by(asked: Wordings, items: list[Worded], seed: int = 0) -> Seen:
    readout = Words(asked.model.words(WORDS).single)
    targets = torch.nn.functional.one_hot(torch.arange(len(items)) % 2, 2).float()
    weight = torch.arange(1.0, len(items) + 1)
    draw = torch.Generator().manual_seed(seed)
    return Seen(asked.model.tower, readout, torch.arange(len(items)), items, targets, weight, 0, 1, draw)


def in_templates(numbers: list[int]) -> list[Worded]:
    return [Worded((text,), k) for text, k in zip(TEXTS, numbers, strict=False)]


def loss_and_gradients(asked: Wordings, levels: tuple[Level, ...], seed: int = 0) -> tuple[Tensor, list[Tensor]]:
    found = MixedLoss(asked, levels)(seen_by(asked, in_templates([0, 1, 2, 0, 1, 2]), seed))
    learns = [p for p in asked.model.tower.parameters() if p.requires_grad]
    return found.detach(), list(torch.autograd.grad(found, learns, allow_unused=True, materialize_grads=True))


@pytest.mark.paper(106, oracle="a")
@pytest.mark.parametrize("kind", ["masked", "roberta", "causal"])
@pytest.mark.parametrize("level", ["token", "sentence"])
def test_a_share_of_one_is_no_mixing(kind: str, level: Level, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = wordings(kind)
    if kind == "causal":
        asked = Wordings(asked.model, asked.templates * 3)
    plain, plain_gradients = loss_and_gradients(asked, ())
    some, _ = loss_and_gradients(asked, (level,))
    assert abs(float(some - 2 * plain)) > 1e-3  # drawn shares do mix
    monkeypatch.setattr(mixpro, "shares", lambda count, alpha, generator: torch.ones(count))
    found, gradients = loss_and_gradients(asked, (level,))
    torch.testing.assert_close(found, 2 * plain, atol=1e-5, rtol=1e-5)
    for mine, theirs in zip(gradients, plain_gradients, strict=True):
        torch.testing.assert_close(mine, 2 * theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.paper(106, oracle="b")
@pytest.mark.parametrize("kind", ["masked", "roberta"])
def test_an_item_mixed_with_itself_stays(kind: str) -> None:
    asked = wordings(kind)
    prompts = [asked.ask(item) for item in in_templates([0, 1, 2, 1, 0, 2])]
    tower, share = asked.model.tower, torch.rand(6, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        plain = tower(prompts)
        torch.testing.assert_close(tower.blend(prompts, prompts, share), plain, atol=1e-5, rtol=1e-5)
        same = tower.after(prompts, lambda h: mixed(h, torch.arange(6), share))
        torch.testing.assert_close(same, plain, atol=1e-5, rtol=1e-5)
        doubled = tower.after(prompts, lambda h: torch.cat([h, h[:1]]))
        torch.testing.assert_close(doubled, torch.cat([plain, plain[:1]]), atol=1e-5, rtol=1e-5)


class Line(nn.Module):
    """A language model without any nonlinearity: word embeddings, a map, a map to words."""

    def __init__(self) -> None:
        super().__init__()
        from transformers import PretrainedConfig

        torch.manual_seed(0)
        self.config, self.table = PretrainedConfig(), nn.Embedding(40, 8)
        self.base_model, self.head = LineBody(self.table), nn.Linear(8, 40)

    def get_input_embeddings(self) -> nn.Module:
        return self.table

    def forward(
        self, input_ids: Tensor | None = None, attention_mask: Tensor | None = None, inputs_embeds: Tensor | None = None
    ) -> Any:
        from transformers.modeling_outputs import MaskedLMOutput

        return MaskedLMOutput(logits=self.head(self.base_model(input_ids, inputs_embeds).last_hidden_state))


class LineBody(nn.Module):
    """Each place sees the sum over all places."""

    def __init__(self, table: nn.Embedding) -> None:
        super().__init__()
        self.table, self.map = table, nn.Linear(8, 8)

    def forward(self, ids: Tensor | None, embeds: Tensor | None) -> Any:
        from transformers.modeling_outputs import BaseModelOutput

        e = self.table(ids) if embeds is None else embeds
        return BaseModelOutput(last_hidden_state=self.map(e + e.sum(1, keepdim=True)))


@pytest.mark.paper(106, oracle="c")
def test_for_a_linear_model_words_and_states_mix_alike() -> None:
    tower = LanguageTower(Line(), "masked")
    draw = torch.Generator().manual_seed(1)
    prompts = [Prompt.of([*row, 4, 3], 4) for row in torch.randint(5, 40, (4, 5), generator=draw).tolist()]
    partner, share = torch.tensor([2, 3, 1, 0]), torch.rand(4, generator=draw)
    with torch.no_grad():
        by_words = tower.blend(prompts, [prompts[j] for j in partner], share)
        by_states = tower.after(prompts, lambda h: mixed(h, partner, share))
    torch.testing.assert_close(by_words, by_states, atol=1e-5, rtol=1e-5)
    assert (by_words - tower(prompts)).abs().max() > 0.1


@pytest.mark.paper(106, oracle="d")
def test_the_loss_is_that_of_both_labels() -> None:
    asked = wordings()
    items = in_templates([0, 1, 2, 0, 1, 2])
    seen, cross_entropy = seen_by(asked, items, 5), nn.functional.cross_entropy
    whole = MixedLoss(asked, ("token", "sentence"), 0.7)(seen).detach()
    g = torch.Generator().manual_seed(5)
    partner, s = torch.randperm(6, generator=g), shares(6, 0.7, g)
    t, tower, ids = shares(6, 0.7, g), asked.model.tower, asked.model.words(WORDS).single
    y, w = seen.labels, seen.weight / seen.weight.sum()
    with torch.no_grad():
        prompts = [asked.ask(item) for item in items]
        own = tower(prompts)[:, ids]
        states = tower.states(prompts)[:, 0]
        by_states = tower.body.cls(s[:, None] * states + (1 - s[:, None]) * states[partner])[:, ids]
        others = [asked.ask(items[j], like=items[i]) for i, j in enumerate(partner.tolist())]
        by_words = tower.blend(prompts, others, t)[:, ids]
        expected = (w * cross_entropy(own, y, reduction="none")).sum()
        for logits, share in ((by_states, s), (by_words, t)):
            first = cross_entropy(logits, y, reduction="none")
            second = cross_entropy(logits, y[partner], reduction="none")
            expected = expected + (w * (share * first + (1 - share) * second)).sum()
            soft = mixed(seen.targets, partner, share)
            torch.testing.assert_close(
                cross_entropy(logits, soft, reduction="none"), share * first + (1 - share) * second
            )
    torch.testing.assert_close(whole, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.paper(106, oracle="e")
def test_every_template_asks_as_often() -> None:
    asked, items = wordings(), [[text] for text in TEXTS]

    def drawn(seed: int) -> list[int]:
        g = torch.Generator().manual_seed(seed)
        return [one.template for _ in range(1000) for one in asked(items, torch.arange(6), g)]

    counts = torch.bincount(torch.tensor(drawn(0)), minlength=3).float()
    assert (counts - 2000).abs().max() < 4 * (6000 * (1 / 3) * (2 / 3)) ** 0.5
    assert drawn(0) == drawn(0) != drawn(1)
    first = Wordings(asked.model, asked.templates, draws=False)
    assert {one.template for one in first(items, torch.arange(6), torch.Generator())} == {0}


@pytest.mark.paper(106, oracle="f")
@pytest.mark.parametrize("alpha", [0.1, 0.5, 2.0])
def test_shares_are_beta(alpha: float) -> None:
    s = shares(100_000, alpha, torch.Generator().manual_seed(0))
    assert float(s.mean()) == pytest.approx(0.5, abs=0.005)
    assert float(s.var()) == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.02)
    assert float(s.min()) >= 0 and float(s.max()) <= 1
    assert torch.equal(s, shares(100_000, alpha, torch.Generator().manual_seed(0)))


def test_the_partner_is_cut_or_filled_up_in_the_template_of_the_item() -> None:
    asked = wordings()

    def shown(own: str, other: str, template: int) -> str:
        prompt = asked.ask(Worded((other,), 2), like=Worded((own,), template))
        assert prompt.masks == asked.ask(Worded((own,), template)).masks
        return " ".join(asked.model.tokenizer.convert_ids_to_tokens(list(prompt.ids)))

    assert shown("a great film", "no", 0) == "[CLS] no [PAD] [PAD] it was [MASK] . [SEP]"
    assert shown("no", "a great film", 0) == "[CLS] a it was [MASK] . [SEP]"
    assert shown("no film", "a great film", 1) == "[CLS] very [MASK] : a great [SEP]"
    short = Wordings(asked.model, asked.templates, length=8)
    cut = short.ask(Worded(("a great film of the actors",), 0))
    assert len(cut.ids) == 8 and " ".join(asked.model.tokenizer.convert_ids_to_tokens(list(cut.ids[1:3]))) == "a great"
    assert short.ask(Worded(("no",), 1), like=Worded(("a great film of the actors",), 0)).masks == cut.masks
    tower, prompts = asked.model.tower, [asked.ask(item) for item in in_templates([0, 0])]
    with pytest.raises(BadInput, match="the prompts of pair 0 ask at different places"):
        tower.blend(prompts, prompts[::-1], torch.ones(2))


@pytest.mark.filterwarnings("ignore:a batch of one item")
def test_one_item_has_no_partner() -> None:
    asked = wordings()
    items = in_templates([1])
    plain = MixedLoss(asked, ())(seen_by(asked, items))
    with pytest.warns(UserWarning, match="a batch of one item has no partner"):
        found = MixedLoss(asked)(seen_by(asked, items))
    assert torch.equal(found, plain)


@pytest.mark.parametrize("levels", [("token", "sentence", "template"), ("template",), ("token",), ()])
def test_it_learns(levels: Any) -> None:
    model = tiny_lm.tiny("masked")
    was = {name: t.clone() for name, t in model.tower.state_dict().items()}
    found = MixProClassifier(model, TEMPLATES, WORDS, levels, steps=60, lr=0.005, batch=6)
    found.fit(TEXTS, LABELS)
    assert found.predict(TEXTS).tolist() == LABELS
    assert all(torch.equal(t, was[name]) for name, t in model.tower.state_dict().items())
    assert found.tuned is not None
    asked = Wordings(model, tuple(map(Template, TEMPLATES)))
    each = [found.tuned.logits([asked.ask(Worded((text,), k)) for text in TEXTS]) for k in range(3)]
    expected = torch.stack(each).mean(0) if "template" in levels else each[0]
    torch.testing.assert_close(found.logits(TEXTS), expected)


def test_alpha_is_chosen_on_held_out_examples() -> None:
    options: dict[str, Any] = {"steps": 20, "lr": 0.005, "batch": 6, "check": 10}
    many = MixProClassifier(tiny_lm.tiny("masked"), TEMPLATES, WORDS, alpha=(0.1, 1.0), **options)
    many.fit(TEXTS, LABELS, TEXTS[::-1], LABELS[::-1])
    each = [
        MixProClassifier(tiny_lm.tiny("masked"), TEMPLATES, WORDS, alpha=alpha, **options).fit(
            TEXTS, LABELS, TEXTS[::-1], LABELS[::-1]
        )
        for alpha in (0.1, 1.0)
    ]
    best = max(each, key=lambda one: cast(float, one.score))  # of equals the first
    assert many.score == best.score
    torch.testing.assert_close(many.logits(TEXTS), best.logits(TEXTS))


def test_what_cannot_be_mixed_is_refused() -> None:
    model = tiny_lm.tiny("masked")

    def made(**options: Any) -> MixProClassifier:
        return MixProClassifier(**{"model": model, "templates": TEMPLATES, "words": WORDS, **options})

    with pytest.raises(BadInput, match="not of a seq2seq one"):
        made(model=tiny_lm.tiny("seq2seq"))
    with pytest.raises(BadInput, match="at least one"):
        made(templates=[])
    with pytest.raises(BadInput, match="give a list of templates"):
        made(templates=TEMPLATES[0])
    with pytest.raises(BadInput, match="one \\*mask\\* for a masked model"):
        made(templates=["*cls**sent_0**sep+*"])
    with pytest.raises(BadInput, match="alpha must be above 0, not 0"):
        made(alpha=0)
    with pytest.raises(BadInput, match="alpha must be above 0"):
        made(alpha=())
    with pytest.raises(BadInput, match="alpha must be above 0"):
        made(alpha=[0.1, float("nan")])
    with pytest.raises(BadInput, match="item 1 is '3', a int: give a text"):
        made().fit([TEXTS[0], 3, *TEXTS[2:]], LABELS)
    with pytest.raises(BadInput, match="not the one text 'a great film'"):
        made().fit("a great film", LABELS)
    with pytest.raises(BadInput, match="there is no level 'word'"):
        made(levels=("word",))
    with pytest.raises(BadInput, match="one word"):
        made(words={"good": "good"})
    with pytest.raises(BadInput, match="several alphas are chosen by held-out examples"):
        made(alpha=(0.1, 0.5)).fit(TEXTS, LABELS)
    with pytest.raises(BadInput, match="not every 0"):
        made(check=0).fit(TEXTS, LABELS, TEXTS[::-1], LABELS[::-1])
    with pytest.raises(BadInput, match="label 'meh' has no word"):
        made().fit(TEXTS, [*LABELS[:5], "meh"])
    with pytest.raises(BadInput, match="6 and 0 texts, but 5 and 0 labels"):
        made().fit(TEXTS, LABELS[:5])
    with pytest.raises(BadInput, match="leaves no room for text in 6 tokens"):
        made(length=6).fit(TEXTS, LABELS)
    with pytest.raises(BadInput, match="has not been fitted"):
        made().logits(TEXTS)
