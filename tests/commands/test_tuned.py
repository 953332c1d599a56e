"""`handful fit --tune`: the encoder learns too, and is judged by encoders that had not seen what they are asked."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import log_softmax

import handful
from handful.adapt.inputs import Features
from handful.commands import tuned as module
from handful.commands.tune import tune
from handful.commands.tuned import FOLDS, ROW, Material, Tuner
from handful.errors import BadInput
from handful.evaluate.crossfit import CrossFit
from handful.evaluate.estimate import scale_of
from handful.ship.model import Model
from handful.tune.encoders import Tunable
from handful.tune.recipe import Recipe
from handful.tune.recipes import RECIPES, list_recipes, recipe, typed
from handful.tune.setfit import Pairs

THINGS = ["soup", "film", "road", "coat", "song", "shop", "desk", "garden"]
GOOD = [f"the {thing} was wonderful, I loved it" for thing in THINGS]
BAD = [f"the {thing} was awful, I hated it" for thing in THINGS]
TEXTS, LABELS = [*GOOD, *BAD], ["good"] * 8 + ["bad"] * 8

POOL = [f"the {thing} was {how}" for thing in ("hotel", "meal", "trip") for how in ("great", "superb", "lovely", "bad")]
ALIENS = [f"{n} times {n} is {n * n}" for n in range(3, 11)]


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four steps are enough to see what happens."""
    monkeypatch.setattr(module, "recipe", lambda key: recipe(key, steps=4) if key == "lora" else recipe(key))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "recipe", lambda key: recipe(key, steps=4))
        return handful.fit(TEXTS, LABELS, tune="lora", head="simpleshot")


def test_the_features_are_those_of_a_changed_encoder(model: Model) -> None:
    assert model.encoder is not None and model.delta is not None
    base = handful.encoder("minilm")
    before, after = base.encode(TEXTS), model.encoder.encode(TEXTS)
    assert model.fingerprint == base.identity != model.encoder.identity
    y = np.array(LABELS) == "good"

    def apart(x: np.ndarray) -> float:
        cosines = x @ x.T
        return float(cosines[np.ix_(y, y)].mean() - cosines[np.ix_(y, ~y)].mean())

    assert apart(after) > apart(before) + 0.05
    np.testing.assert_array_equal(base.encode(TEXTS, cache=False), before)


def test_a_file_keeps_the_changes_only(model: Model, tmp_path: Path) -> None:
    model.save(tmp_path / "m.handful")
    assert (tmp_path / "m.handful").stat().st_size < 3_000_000  # the encoder alone is 90 MB
    again = handful.load(tmp_path / "m.handful")
    new = ["what a wonderful day", "an awful day"]
    np.testing.assert_array_equal(again.predict_proba(new), model.predict_proba(new))
    assert again.encoder is not None and model.encoder is not None
    assert again.encoder.fingerprint == model.encoder.fingerprint
    again.save(tmp_path / "n.handful")
    assert (tmp_path / "n.handful").read_bytes() == (tmp_path / "m.handful").read_bytes()


def test_a_file_whose_changes_do_not_fit_is_refused(model: Model, tmp_path: Path) -> None:
    assert model.delta is not None
    described, tensors = model.delta
    path = tmp_path / "m.handful"
    odd = [
        (None, tensors, "makes no sense"),
        (described | {"fingerprint": "0" * 64}, tensors, "belong to a model with the fingerprint 0000"),
        (described, dict(list(tensors.items())[1:]), "is missing"),
        (described, tensors | {"0.A": torch.zeros(2, 2)}, "must be finite"),
        (described | {"changes": [{"change": "eval", "settings": {}, "parameter": "weight", "sites": []}]}, tensors,
         "no change 'eval'"),
    ]  # fmt: skip
    for wrong, numbers, complaint in odd:
        broken = Model(model.head, model.encoder_name, model.fingerprint, 1.0, dict(model.card))
        broken.delta = (wrong, numbers)  # type: ignore[assignment]
        broken.save(path)
        with pytest.raises(BadInput, match=complaint):
            assert handful.load(path).encoder


def test_the_card_says_what_was_changed_and_what_it_brought(model: Model) -> None:
    card = model.card["tuning"]
    assert card["recipe"] == card["asked"] == "lora" and card["kept"]
    assert card["changed"] == sum(t.numel() for t in model.delta[1].values())  # type: ignore[index]
    assert 0 <= card["frozen"] <= 1 and 0 <= card["tuned"] <= 1
    assert "numbers learnt" in card["sentence"]
    assert f"{FOLDS} stratified folds" in model.card["estimate"]["method"]
    assert model.card["candidates"] == [] and "has seen" in model.card["head"]["why"]
    json.dumps(model.card)


def test_no_encoder_is_judged_by_what_it_has_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    fits: list[set[str]] = []
    asked: list[set[str]] = []
    fit, logits = Tuner.fit, Tuner.logits

    def names(tuner: Tuner, rows: object) -> set[str]:
        return {tuner.material.items[int(i)] for i in rows.views["row"][:, 0]}  # type: ignore[attr-defined]

    def watched_fit(self: Tuner, rows: object, labels: np.ndarray) -> Tuner:
        fits.append(names(self, rows))
        return fit(self, rows, labels)  # type: ignore[arg-type]

    def watched_logits(self: Tuner, rows: object) -> object:
        asked.append(names(self, rows))
        assert not asked[-1] & fits[-1]
        return logits(self, rows)  # type: ignore[arg-type]

    monkeypatch.setattr(Tuner, "fit", watched_fit)
    monkeypatch.setattr(Tuner, "logits", watched_logits)
    handful.fit(TEXTS, LABELS, tune="lora", head="simpleshot", near_duplicates=False)
    assert fits[0] == set(TEXTS) and len(fits) == FOLDS + 1
    assert Counter(text for some in asked for text in some) == Counter(TEXTS)


def test_random_labels_are_not_learnt(monkeypatch: pytest.MonkeyPatch) -> None:
    """An estimate that leaked would say that they were: each encoder tells its own examples apart."""
    rng = np.random.default_rng(0)
    labels = rng.permutation(LABELS).tolist()
    found = handful.fit(TEXTS, labels, tune="lora", head="simpleshot", near_duplicates=False)
    assert found.card["estimate"]["accuracy"]["low"] < 0.5


def test_auto_takes_what_the_folds_prefer(monkeypatch: pytest.MonkeyPatch) -> None:
    def worse(key: str) -> Recipe:
        return recipe("lora", steps=6, lr=0.5)

    monkeypatch.setattr(module, "recipe", worse)
    found = tune(TEXTS, LABELS, head="simpleshot")
    assert not found.card["tuning"]["kept"] and found.delta is None
    assert "not kept" in found.card["tuning"]["sentence"]
    base = handful.fit(TEXTS, LABELS, head="simpleshot")
    assert found.encoder is not None and base.encoder is not None
    assert found.encoder.identity == base.encoder.identity
    np.testing.assert_allclose(
        found.head.logits(base.encoder.encode(TEXTS)), base.head.logits(base.encoder.encode(TEXTS))
    )


def test_a_rare_class_counts_as_much_as_a_common_one() -> None:
    """One that never names the rare class is right five times in six; the other knows it, and is right less often."""
    codes, fold, every = np.array([0] * 20 + [1] * 4), np.arange(24) % 4, np.ones(24, dtype=bool)
    says = np.array([0] * 15 + [1] * 9)
    blind, fair = (
        CrossFit(logits, every, fold, np.ones(24), 4)
        for logits in (np.tile([1.6, 0.0], (24, 1)), 1.3 * np.eye(2)[says])
    )

    def plain(deal: CrossFit, scale: float) -> np.ndarray:
        losses: np.ndarray = -log_softmax(scale * deal.logits, axis=1)[np.arange(24), codes]
        return losses

    share = np.array([24 / (2 * 20), 24 / (2 * 4)])[codes]
    for deal in (blind, fair):
        scale = scale_of(deal, codes, share)
        np.testing.assert_allclose(module._losses(deal, codes), share * plain(deal, scale))
        near = [(share * plain(deal, scale * by)).sum() for by in (0.8, 1.25)]
        assert deal is blind or min(near) > 0.999 * (share * plain(deal, scale)).sum()
    assert plain(blind, scale_of(blind, codes)).sum() < plain(fair, scale_of(fair, codes)).sum()
    assert module._losses(blind, codes).mean() == pytest.approx(np.log(2), abs=1e-2)  # it says nothing
    assert module._losses(blind, codes).sum() > module._losses(fair, codes).sum()


def test_auto_leaves_it_where_time_is_short() -> None:
    found = handful.fit(TEXTS, LABELS, tune="auto", head="simpleshot", time_limit=0.01)
    assert not found.card["tuning"]["kept"]
    assert "time does not suffice" in found.card["tuning"]["sentence"]


def test_a_readout_that_answers_ships(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "recipe", lambda key: recipe(key, epochs=2, lr=3e-4))
    made = handful.fit(TEXTS, LABELS, tune="fastfit", out=tmp_path / "m.handful")
    assert made.encoder is not None and made.encoder.dim == 2 and made.encoder.aligned is None
    again = handful.load(tmp_path / "m.handful")
    new = ["what a wonderful day, I loved it", "an awful day", "short", "a day " * 300]
    np.testing.assert_array_equal(again.predict_proba(new), made.predict_proba(new))
    np.testing.assert_allclose(made.predict_proba(new[:1]), made.predict_proba(new)[:1], rtol=1e-3)
    assert made.predict(new[:2]) == ["good", "bad"]
    assert "belongs to the recipe" in made.card["head"]["why"]
    assert made.card["class_text"]["used"] and "token by token" in made.card["class_text"]["reason"]
    assert again.encoder is not None and again.encoder.identity == made.encoder.identity
    described, tensors = made.delta  # type: ignore[misc]
    for wrong, numbers, complaint in [
        (described | {"reading": {"kind": "eval"}}, tensors, "no reading 'eval'"),
        ({k: v for k, v in described.items() if k != "reading"}, tensors, "no reading 'None'"),
        (described, tensors | {"reading.mask": torch.ones(3, 1)}, "do not fit together"),
        (described, {k: v for k, v in tensors.items() if "projection" not in k}, "no reading"),
    ]:
        broken = Model(made.head, made.encoder_name, made.fingerprint, 1.0, dict(made.card))
        broken.delta = (wrong, numbers)
        broken.save(tmp_path / "n.handful")
        with pytest.raises(BadInput, match=complaint):
            assert handful.load(tmp_path / "n.handful").encoder


def test_a_head_of_the_recipe_that_reads_no_class_names_says_so() -> None:
    learn = "setfit-gradient:iterations=1,epochs=0,head_epochs=1"
    for key in (learn, "fastfit:epochs=0,answer=head"):
        told = handful.fit(TEXTS, LABELS, tune=key).card["class_text"]
        assert not told["used"] and told["weight"] == 0 and "examples alone" in told["reason"]


def test_what_does_not_go_together_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no recipe 'lorra'; did you mean 'lora'"):
        handful.fit(TEXTS, LABELS, tune="lorra")
    with pytest.raises(BadInput, match="--tune needs labelled examples"):
        handful.fit(TEXTS, LABELS, tune="lora", zero_shot=True)
    with pytest.raises(BadInput, match="--tune needs labelled examples"):
        handful.fit(TEXTS, [None] * 16, tune="lora", class_names={"good": "good", "bad": "bad"})
    with pytest.raises(BadInput, match=r"gpam learns from features, which .* not so: energy, probability"):
        handful.fit(TEXTS, LABELS, tune="lora", reject="gpam")
    with pytest.raises(BadInput, match="knows labelled items only: leave --unlabelled out"):
        handful.fit(TEXTS, LABELS, tune="fastfit", unlabelled=POOL)
    with pytest.raises(BadInput, match="--tune fastfit brings a head of its own: leave --head at auto"):
        handful.fit(TEXTS, LABELS, tune="fastfit", head="simpleshot")
    with pytest.raises(BadInput, match="there is no encoder to tune"):
        handful.fit(np.random.default_rng(0).normal(size=(16, 4)), LABELS, tune="lora")


def test_a_pool_is_read_by_the_encoder_that_learns_from_it(tmp_path: Path) -> None:
    found = handful.fit(TEXTS, LABELS, tune="lora", head="laplacianshot", unlabelled=POOL, out=tmp_path / "m.handful")
    assert found.card["unlabelled"]["n"] == len(POOL) and found.delta is not None and found.encoder is not None
    tuned, base = found.encoder.encode(POOL), handful.encoder("minilm").encode(POOL)
    assert not np.allclose(tuned, base, atol=1e-3)
    plain = handful.fit(TEXTS, LABELS, tune="lora", head="laplacianshot")
    learnt = handful.head("laplacianshot", unlabelled=tuned, random_state=0, logit_scale=found.encoder.logit_scale)
    learnt.set_params(transductive=False).fit(found.encoder.encode(TEXTS), LABELS)
    new = found.encoder.encode(["a wonderful day", "an awful day"])
    np.testing.assert_allclose(found.head.logits(new), learnt.logits(new), rtol=1e-4, atol=1e-5)
    assert not np.allclose(found.head.logits(new), plain.head.logits(new))
    again = handful.load(tmp_path / "m.handful")
    np.testing.assert_array_equal(again.predict_proba(POOL), found.predict_proba(POOL))


def test_the_mix_of_a_pool_is_read_off_the_tuned_encoder() -> None:
    texts, labels = [*TEXTS, *POOL], [*LABELS, *[None] * len(POOL)]
    found = handful.fit(texts, labels, tune="lora", head="simpleshot", class_prior="pool")
    shares = found.card["population"]["shares"]
    assert shares["good"] > 0.6  # three in four of the pool


def test_none_of_these_by_encoders_that_had_not_seen_what_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    learnt: list[set[str]] = []
    fit, logits = Tuner.fit, Tuner.logits

    def names(tuner: Tuner, rows: object) -> set[str]:
        return {tuner.material.items[int(i)] for i in rows.views["row"][:, 0]}  # type: ignore[attr-defined]

    def watched_fit(self: Tuner, rows: object, labels: np.ndarray) -> Tuner:
        learnt.append(names(self, rows))
        return fit(self, rows, labels)  # type: ignore[arg-type]

    def watched_logits(self: Tuner, rows: object) -> object:
        assert not names(self, rows) & learnt[-1]
        return logits(self, rows)  # type: ignore[arg-type]

    monkeypatch.setattr(Tuner, "fit", watched_fit)
    monkeypatch.setattr(Tuner, "logits", watched_logits)
    found = handful.fit(
        TEXTS, LABELS, tune="lora", head="simpleshot", near_duplicates=False, reject="energy", false_alarms=0.2,
        negatives=ALIENS,
    )  # fmt: skip
    card = found.card["reject"]
    assert card["basis"] == "negatives" and card["unknown"] == len(ALIENS) and 0 <= card["auroc"]["value"] <= 1
    assert not set(ALIENS) & set.union(*learnt) and set(found.predict(ALIENS)) <= {"good", "bad", "other"}


def test_recipes_by_key() -> None:
    assert [row["key"] for row in list_recipes()] == sorted(RECIPES)
    assert all(isinstance(recipe(key), Recipe) for key in RECIPES)
    typed = recipe("lora:rank=3,lr=5e-4")
    assert typed.changes[0].change.settings()["rank"] == 3 and typed.stages[0].lr == 5e-4
    for wrong in ("lora:ranks=3", "lora:=3"):
        with pytest.raises(BadInput, match="has no setting"):
            recipe(wrong)
    with pytest.raises(BadInput, match="rank='three' is not a whole number"):
        recipe("lora:rank=three")


def test_settings_are_of_the_type_that_they_are_declared_with() -> None:
    assert recipe("setfit:iterations=20").sampler == Pairs(iterations=20)
    made = recipe("setfit:iterations=20").sampler
    assert isinstance(made, Pairs) and isinstance(made.iterations, int)
    assert recipe("setfit:iterations=None,epochs=0.5") == recipe("setfit", epochs=0.5)
    assert recipe("lora-sb:eta=0.5").start == recipe("lora-sb", eta=0.5).start
    assert recipe("prolip:reg=0.5").objectives == recipe("prolip", reg=0.5).objectives
    assert recipe("prolip:reg=1/K2").objectives == recipe("prolip", reg="1/K2").objectives
    assert recipe("taps:names=layer").changes == recipe("taps", names="layer").changes
    for wrong, complaint in (
        ("setfit:iterations=2.5", "iterations='2.5' is not a whole number"),
        ("setfit:epochs=few", "epochs='few' is not a number"),
        ("setfit:epochs=nan", "epochs and steps must be numbers"),
        ("setfit:lr=inf", "lr and weight decay are numbers, none below 0, not inf"),
        ("setfit-gradient:end_to_end=maybe", "end_to_end='maybe' is not true or false"),
        ("setfit:epochs", "'epochs' has no value"),
        ("stable:prior_decay=-1", "none below 0, not 2e-05 and -1.0"),
    ):
        with pytest.raises(BadInput, match=complaint):
            recipe(wrong)
    for key, settings, complaint in (
        ("setfit", {"iterations": "20"}, "iterations='20' is not a whole number"),
        ("setfit", {"batch": 2.5}, "batch=2.5 is not a whole number"),
        ("setfit", {"lr": "fast"}, "lr='fast' is not a number"),
        ("setfit", {"epochs": True}, "epochs=True is not a number"),
        ("setfit:lr=1e-3", {"lr": 2e-3}, "lr is given twice, as 0.002 and 0.001"),
        (5, {}, "a recipe is named by its key"),
    ):
        with pytest.raises(BadInput, match=complaint):
            recipe(key, **settings)  # type: ignore[arg-type]
    assert recipe("setfit", iterations=20.0).sampler == Pairs(iterations=20)
    with pytest.raises(BadInput, match="a recipe is named by its key, such as 'lora'"):
        handful.fit(TEXTS, LABELS, tune=["lora"])  # type: ignore[arg-type]


def test_settings_are_listed_as_they_are_typed() -> None:
    rows = {row["key"]: typed(row["settings"]) for row in list_recipes()}
    assert "separator='\\n\\n'" in rows["in-context"]
    assert "template=''" in rows["lm-bff"]
    assert all(one.isprintable() for row in rows.values() for one in row)
    lora = recipe("lorma:" + ",".join(one for one in rows["lorma"] if not one.endswith("=None")))
    assert lora.changes == recipe("lorma").changes


def test_of_taps_only_the_layers_that_change_are_kept() -> None:
    """A penalty that no layer outlives leaves norms and nothing else in the file; the answers are those of the run."""
    encoder = handful.encoder("minilm")
    assert isinstance(encoder, Tunable)
    tower = encoder.tower()
    made = recipe("taps", lam=100.0, warmup=-1, epochs=6, batch=8, lr=0.02)
    tuner = Tuner(handful.head("simpleshot"), Material(encoder, tower, TEXTS, encoder.inputs(TEXTS), {}, made))
    rows = Features(encoder.encode(TEXTS), views={ROW: np.arange(16)[:, None]})
    tuner.fit(rows, np.array(LABELS))
    assert {holder.change.key for holder in tuner.delta_.each()} == {"own"}
    assert tuner.delta_.trainable() == 13 * 2 * 384
    assert np.abs(tuner.encoder_.encode(TEXTS) - encoder.encode(TEXTS)).max() > 1e-3


def test_clones_share_the_material() -> None:
    from sklearn.base import clone

    material = Material(None, None, [], [], {}, recipe("lora"))  # type: ignore[arg-type]
    assert clone(Tuner(handful.head("simpleshot"), material)).material is material
