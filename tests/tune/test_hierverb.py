"""HierVerb (203): a mask a level, rows from names, the whole loss."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny_lm
import torch
from torch import Tensor, nn

from handful.core.hierarchy import Hierarchy
from handful.encode.asking import Levels
from handful.encode.prompt import Prompt, level_prompt
from handful.encode.speaker import Speaker
from handful.errors import BadInput
from handful.tune.cloze import IGNORED, Cloze, covered
from handful.tune.hierarchical import level_answers
from handful.tune.hierverb import HierVerbClassifier, HierVerbLoss, LevelWords
from handful.tune.loop import tune
from handful.tune.recipe import Data, Seen
from handful.tune.recipes import recipe
from handful.tune.samplers import Twice

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "hierverb.json").read_text(encoding="utf-8"))["forward"]
TREE = Hierarchy.of([
    "a > a > a", "a > a > b", "a > b > a", "b > a > a", "b > a > b", "b > b > a", "b > b > b",
])  # fmt: skip
TEXTS = ["a great film", "great actors", "it was great", "a terrible film", "terrible actors", "it was terrible"]
LABELS = ["good > film", "good > actors", "good > plot", "bad > film", "bad > actors", "bad > plot"]


def quick(**options: Any) -> HierVerbClassifier:
    settings = {"epochs": 40, "lr": 5e-3, "rows_lr": 5e-2} | options
    return HierVerbClassifier(tiny_lm.tiny("masked"), **settings)  # type: ignore[arg-type]


class Drawn:
    """The seeded tensors of the golden numbers, drawn in their order."""

    def __init__(self) -> None:
        g = torch.Generator().manual_seed(203)
        self.h, self.u = torch.randn(12, 3, 16, generator=g), torch.randn(12, 3, 16, generator=g)
        self.rows = [torch.randn(n, 16, generator=g) for n in (2, 4, 7)]
        self.leaves = torch.randint(0, 7, (6,), generator=g).repeat_interleave(2)
        self.mlm = torch.rand((), generator=g) * 5
        self.table = torch.randn(20, 8, generator=g)

    def readout(self) -> LevelWords:
        made = LevelWords(TREE, {})
        made.rows = nn.ParameterList(nn.Parameter(r) for r in self.rows)
        return made

    def seen(self) -> Seen:
        targets = nn.functional.one_hot(self.leaves, 7).float()
        made = Seen(None, self.readout(), None, None, targets, torch.ones(12), 0, 1, torch.Generator())  # type: ignore[arg-type]
        made.__dict__["features"] = (self.h, self.u)
        return made


@pytest.mark.paper(203, oracle="c", part="method")
def test_the_whole_loss_is_the_authors() -> None:
    drawn = Drawn()
    levels, mlm, chain, contrast = GOLDEN["parts"]
    assert mlm == pytest.approx(float(drawn.mlm))

    def cloze(seen: Seen) -> Tensor:
        return drawn.mlm

    whole = HierVerbLoss(cloze, chain="repo")
    assert float(whole(drawn.seen()).detach()) == pytest.approx(GOLDEN["total"], rel=1e-5)
    levels_only = HierVerbLoss(cloze, mlm=0, chain=None, contrast=0)
    assert float(levels_only(drawn.seen()).detach()) == pytest.approx(levels, rel=1e-5)
    chained = HierVerbLoss(cloze, mlm=0, chain="repo", contrast=0)
    assert float(chained(drawn.seen()).detach()) == pytest.approx(levels + chain, rel=1e-5)
    near = HierVerbLoss(cloze, mlm=0, chain=None, contrast=0.5)
    assert float(near(drawn.seen()).detach()) == pytest.approx(levels + 0.5 * contrast, rel=1e-5)


@pytest.mark.paper(203, oracle="e", part="method")
def test_rows_begin_as_the_authors() -> None:
    drawn, place = Drawn(), {}
    for i, name in enumerate(name for level in TREE.levels for name in level):
        place[name] = (i, (3 * i + 5) % 20)
    readout, model = LevelWords(TREE, place), tiny_lm.tiny("masked").tower
    with torch.no_grad():
        table = nn.Embedding(20, 8)
        table.weight.copy_(drawn.table)
    model.body.set_input_embeddings(table)
    readout.begin(model, Data([0], torch.tensor([0]), TREE.levels[-1]), torch.Generator())
    for rows, theirs in zip(readout.rows, GOLDEN["rows"], strict=True):
        torch.testing.assert_close(rows.detach(), torch.tensor(theirs))


@pytest.mark.parametrize("mode", [0, 1, 2])
def test_answers_are_the_authors(mode: Any) -> None:
    drawn = Drawn()
    logits = [z.detach() for z in drawn.readout().levels((drawn.h, drawn.u))]
    found = torch.stack(level_answers(logits, TREE, mode), 1)
    assert found.tolist() == GOLDEN["answers"][str(mode)]


def test_a_mask_a_level_and_the_text_is_cut() -> None:
    tokenizer = tiny_lm.word_tokenizer()

    def shown(text: str, depth: int, most: int = 48) -> str:
        return " ".join(tokenizer.convert_ids_to_tokens(list(level_prompt(tokenizer, text, depth, most).ids)))

    # the small vocabulary has no numbers and no "level"
    two = "[CLS] it was [UNK] [UNK] : [MASK] [UNK] [UNK] : [MASK] ."
    assert shown("a great film", 2) == f"{two} a great film [SEP]"
    assert shown("a great film", 2, 14) == f"{two} a [SEP]"
    assert level_prompt(tokenizer, "a", 2, 48).masks == (6, 10)
    assert level_prompt(tokenizer, "a [MASK]", 2, 48).masks == (6, 10)  # a mask that stands in the text is no question
    with pytest.raises(BadInput, match="13 tokens leave no room for text beside the masks of 2 levels"):
        level_prompt(tokenizer, "a", 2, 13)


@pytest.mark.parametrize("kind", ["masked", "roberta"])
def test_states_at_masks_are_those_of_the_whole_model(kind: str) -> None:
    model = tiny_lm.tiny(kind)
    prompts = [level_prompt(model.tokenizer, text, 2, 48) for text in TEXTS[:3]]
    with torch.no_grad():
        h, u = model.tower.at_masks(prompts, 2)
        logits = tiny_lm.logits_everywhere(model.tower, prompts)
        words = model.tower.body.get_output_embeddings()
        for row, prompt in enumerate(prompts):
            torch.testing.assert_close(words(u[row]), logits[row, list(prompt.masks)], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(h, model.tower.states(prompts, 2))


def test_the_recipe_is_the_class_in_python() -> None:
    """From texts, with every loss; what is kept of it answers with the leaves."""
    how: dict[str, Any] = {"epochs": 2, "lr": 1e-3, "rows_lr": 1e-2, "batch": 4}
    theirs = HierVerbClassifier(tiny_lm.tiny("masked"), length=48, seed=3, **how).fit(TEXTS, LABELS)
    tower, leaves = Speaker(tiny_lm.tiny("masked")).eval(), Hierarchy.of(LABELS).levels[-1]
    codes = torch.tensor([leaves.index(label) for label in LABELS])
    named = [leaf.replace("_", " ") for leaf in leaves]
    ours = tune(tower, Data(TEXTS, codes, leaves, documents=named), recipe("hierverb", length=48, **how), seed=3)
    assert theirs.tuned is not None and ours.losses == pytest.approx(theirs.tuned.losses, abs=1e-6)
    new = ["a great film", "the actors were dull", "news about it"]
    torch.testing.assert_close(ours.logits(new), theirs.levels(new)[-1], atol=1e-5, rtol=1e-5)
    with torch.no_grad(), ours.delta.attached(tower):
        shipped = ours.readout.ships(tower)
        assert shipped is not None and isinstance(shipped.reading, Levels)
        said = shipped.reading.logits(shipped.reading.look(tower.model, new))
    assert [leaves[at] for at in said.argmax(1).tolist()] == theirs.predict(new).tolist()


def test_the_recipe_refuses_what_is_no_tree() -> None:
    def learnt(kind: str, classes: tuple[str, ...], key: str = "hierverb:epochs=1") -> None:
        tune(Speaker(tiny_lm.tiny(kind)), Data(TEXTS[:2], torch.tensor([0, 1]), classes), recipe(key))

    for kind, classes, message in [
        ("masked", ("a > b", "c"), "'c' has 1 levels, 'a > b' has 2: give whole paths"),
        ("causal", ("a > b", "a > c"), "take a masked model, not a causal one"),
    ]:
        with pytest.raises(BadInput, match=message):
            learnt(kind, classes)
    with pytest.raises(BadInput, match="mlm is a share below 1"):
        learnt("masked", ("a > b", "a > c"), "hierverb:mlm=1")


def test_it_learns_a_tree_and_leaves_the_model_as_it_was() -> None:
    classifier = quick(seed=1)
    was = {name: t.clone() for name, t in classifier.model.tower.state_dict().items()}
    classifier.fit(TEXTS, LABELS)
    assert classifier.predict(TEXTS).tolist() == LABELS
    assert classifier.paths(TEXTS)[0] == ("good", "good > film")
    assert all(torch.equal(t, was[name]) for name, t in classifier.model.tower.state_dict().items())
    assert classifier.tuned is not None and len(classifier.tuned.losses) == 40 * 2
    again = quick(seed=1).fit(TEXTS, LABELS)
    for mine, theirs in zip(again.levels(TEXTS), classifier.levels(TEXTS), strict=True):
        assert torch.equal(mine, theirs)


def test_training_ends_when_the_held_out_score_no_longer_rises() -> None:
    dev, dev_labels = TEXTS[::-1], LABELS[::-1]
    classifier = quick(patience=3).fit(TEXTS, LABELS, dev, dev_labels)
    assert classifier.tuned is not None and len(classifier.tuned.losses) < 40 * 2
    assert classifier.predict(dev).tolist() == dev_labels
    assert quick(best="micro", epochs=2).fit(TEXTS, LABELS, dev, dev_labels).predict(dev).shape == (6,)


def test_covered_words_are_asked_and_special_ones_are_not() -> None:
    tokenizer = tiny_lm.word_tokenizer()
    prompt = level_prompt(tokenizer, "the film was great and the story was moving", 1, 48)
    short = Prompt.of([2, 9, 3], 4)
    shown, asked = covered([prompt, short] * 1000, tokenizer, torch.Generator().manual_seed(0))
    ids = torch.tensor(prompt.ids)
    special = torch.isin(ids, torch.tensor(tokenizer.all_special_ids))
    long = asked[::2]
    assert (long[:, special] == IGNORED).all() and (asked[1::2, 3:] == IGNORED).all()
    hit = long != IGNORED
    assert float(hit[:, ~special].float().mean()) == pytest.approx(0.15, abs=0.01)
    assert torch.equal(long[hit], ids.expand(1000, -1)[hit])
    now = torch.tensor([one.ids for one in shown[::2]])
    assert torch.equal(now[~hit], ids.expand(1000, -1)[~hit])
    assert float((now[hit] == tokenizer.mask_token_id).float().mean()) == pytest.approx(0.8, abs=0.03)
    assert float((now[hit] == long[hit]).float().mean()) == pytest.approx(0.1, abs=0.03)
    assert len(shown[1].ids) == 3 and shown[0].masks[-1] < len(prompt.ids)
    with pytest.raises(BadInput, match="no mask token"):
        covered([prompt], tiny_lm.gap_tokenizer(), torch.Generator())
    with pytest.raises(BadInput, match="above 0 and at most 1"):
        covered([prompt], tokenizer, torch.Generator(), 0.0)


def test_the_loss_of_covered_words_is_the_models_own() -> None:
    model = tiny_lm.tiny("masked")
    prompts = [level_prompt(model.tokenizer, text, 1, 48) for text in ["a very great film", "no", *TEXTS]]
    draw = torch.Generator().manual_seed(3)
    seen = Seen(model.tower, None, None, prompts, None, None, 0, 1, draw)  # type: ignore[arg-type]
    shown, asked = covered(prompts, model.tokenizer, torch.Generator().manual_seed(3))
    with torch.no_grad():
        ours = Cloze(model.tokenizer)(seen)
        theirs = model.tower.body(**model.tower.inputs(shown), labels=asked).loss
        torch.testing.assert_close(ours, theirs)
        bare = Seen(model.tower, None, None, [Prompt.of([2, 3], 4)], None, None, 0, 1, draw)  # type: ignore[arg-type]
        assert float(Cloze(model.tokenizer)(bare)) == 0


def test_a_batch_holds_each_example_twice() -> None:
    data = Data(torch.zeros(7, 1), torch.zeros(7, dtype=torch.long))
    rows = next(Twice().draws(data, 5, torch.Generator().manual_seed(0)))
    assert len(rows) == 10 and torch.equal(rows[::2], rows[1::2]) and len(set(rows.tolist())) == 5
    assert Twice().steps(data, 3, 5) == 6


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(BadInput, match="is causal"):
        HierVerbClassifier(tiny_lm.tiny("causal"))
    with pytest.raises(BadInput, match="mlm is a share below 1"):
        quick(mlm=1.0)
    with pytest.raises(BadInput, match="best is 'macro' or 'micro'"):
        quick(best="accuracy")
    with pytest.raises(BadInput, match="6 and 0 texts, but 5 and 0 labels"):
        quick().fit(TEXTS, LABELS[:5])
    with pytest.raises(BadInput, match="'good > moving' is no leaf of the hierarchy"):
        quick().fit(TEXTS, LABELS, ["a film"], ["good > moving"])
    with pytest.raises(BadInput, match="'fine > plot' has no example to learn from"):
        quick(tree=Hierarchy.of([*LABELS, "fine > plot"])).fit(TEXTS, LABELS)
    with pytest.raises(BadInput, match="names has 'god', which is no label; did you mean"):
        quick(names={"god": "great"}).fit(TEXTS, LABELS)
    with pytest.raises(BadInput, match="leave no room for text"):
        quick(length=10).fit(TEXTS, LABELS)
    with pytest.raises(BadInput, match="has not been fitted"):
        quick().paths(TEXTS)
    with pytest.raises(BadInput, match="label 1 is no path of names, such as 'a > b'"):
        quick().fit(TEXTS, [1, 2, 3, 1, 2, 3])  # type: ignore[list-item]
    with pytest.raises(BadInput, match="item 0 has 2 texts; each is one text here"):
        quick().fit([("a", "b"), *TEXTS[1:]], LABELS)  # type: ignore[list-item]
    with pytest.raises(BadInput, match="item 0 is 'None', a NoneType"):
        quick().fit([None, *TEXTS[1:]], LABELS)  # type: ignore[list-item]
