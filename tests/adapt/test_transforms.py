"""Transforms of papers 008, 019 and 042 against what their sheets say they must equal."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestCentroid
from sklearn.pipeline import Pipeline, make_pipeline

from handful.adapt.channels import channel_importance, mean_magnitude, oracle_multiplier
from handful.adapt.logistic import Logistic
from handful.adapt.prototypes import Prototypes
from handful.adapt.transforms import Center, Chain, ChannelPower, Power, Unit, lossless
from handful.errors import BadInput


def easy(base: np.ndarray, letters: str = "ME") -> Pipeline:
    """Paper 008's inductive classifier."""
    return make_pipeline(FrozenEstimator(Chain.letters(letters).fit(base)), Prototypes())


def positive(*shape: int, seed: int = 0) -> np.ndarray:
    return np.abs(np.random.default_rng(seed).normal(size=shape))


class TestEasy:
    @pytest.mark.paper(8, oracle="a")
    def test_is_the_nearest_centroid_of_processed_features(self, blobs: Any) -> None:
        x, y = blobs(noise=1.5)
        q, base = blobs(shots=40, noise=1.5, seed=1)[0], blobs(seed=2)[0]
        mean = base.mean(0)
        process = lambda z: (z - mean) / np.linalg.norm(z - mean, axis=1, keepdims=True)  # noqa: E731
        want = NearestCentroid().fit(process(x), y).predict(process(q))
        assert np.array_equal(easy(base).fit(x, y).predict(q), want)

    @pytest.mark.paper(8, oracle="b")
    @pytest.mark.parametrize(("scale", "shift"), [(1.0, 5.0), (0.1, 0.0), (30.0, -2.0)])
    def test_translation_and_scale_of_everything_change_nothing(self, blobs: Any, scale: float, shift: float) -> None:
        x, y = blobs()
        q, base = blobs(seed=1)[0], blobs(seed=2)[0]
        move = lambda z: scale * z + shift  # noqa: E731
        plain = easy(base).fit(x, y).predict_proba(q)
        np.testing.assert_allclose(easy(move(base)).fit(move(x), y).predict_proba(move(q)), plain, atol=1e-9)

    @pytest.mark.paper(8, oracle="e")
    @pytest.mark.parametrize("letters", ["ME", "PEME", "RM", "EM"])
    def test_preprocessing_equals_the_authors_code(self, golden: Any, letters: str) -> None:
        inputs, expected = golden("easy")
        base, novel = np.asarray(inputs["base"]), np.asarray(inputs["novel"])
        got = Chain.letters(letters).fit(base.reshape(-1, 6)).transform(novel.reshape(-1, 6))
        np.testing.assert_allclose(got.reshape(novel.shape), expected[letters], atol=1e-6)

    def test_unknown_letters_are_named(self) -> None:
        with pytest.raises(BadInput, match="unknown letter 'Q'"):
            Chain.letters("MQ")


class TestChannelPower:
    @pytest.mark.paper(19, oracle="a")
    def test_the_values_of_the_sheet(self) -> None:
        x = np.linspace(0, 3, 50)[:, None]
        for signed in (True, False):
            assert (np.diff(ChannelPower(signed=signed).fit_transform(x)[:, 0]) > 0).all()
        one, zero = np.array([[1.0], [0.0]]), 0.041731
        plain = ChannelPower(signed=False).fit_transform(one)
        np.testing.assert_allclose(plain[:, 0], [1.61037, 0], atol=1e-5)
        signed = ChannelPower().fit_transform(one)
        np.testing.assert_allclose(signed[:, 0], [1.568659, 0], atol=1e-6)
        big = ChannelPower(signed=False).fit_transform(x[5:]) - ChannelPower().fit_transform(x[5:])
        np.testing.assert_allclose(big[-1], zero, atol=2e-4)

    def test_large_values_keep_their_digits(self) -> None:
        x = np.array([[1e3, 1e6], [2e7, 1e8]])
        short = ChannelPower().fit_transform(x.astype(np.float32))
        np.testing.assert_allclose(short, ChannelPower().fit_transform(x), rtol=1e-5)
        np.testing.assert_allclose(short, np.log1p(1 / x) ** -1.3, rtol=1e-4)

    @pytest.mark.paper(19, oracle="c")
    @settings(max_examples=30, deadline=None)
    @given(st.lists(st.floats(-5, 5), min_size=2, max_size=8))
    def test_is_odd(self, values: list[float]) -> None:
        x = torch.tensor(values, dtype=torch.float64)[None]
        torch.testing.assert_close(ChannelPower().apply({}, -x), -ChannelPower().apply({}, x), atol=1e-7, rtol=0)

    @pytest.mark.paper(19, oracle="d")
    def test_a_signal_in_small_channels_becomes_visible(self) -> None:
        draw = np.random.default_rng(0)

        def sample(n: int) -> tuple[np.ndarray, np.ndarray]:
            y = np.arange(n) % 2
            small = 0.02 * np.eye(2).repeat(30, 1)[y] * draw.uniform(0.8, 1.2, (n, 60))
            return np.concatenate([small, draw.uniform(0.2, 0.8, (n, 40))], 1), y

        x, y = sample(10)
        q, truth = sample(400)
        cosine = Prototypes(metric="cosine")
        before = make_pipeline(Unit(), cosine).fit(x, y).score(q, truth)
        after = make_pipeline(ChannelPower(), Unit(), cosine).fit(x, y).score(q, truth)
        assert before < 0.65
        assert after > 0.9

    @pytest.mark.paper(19, oracle="e")
    def test_both_classifiers_equal_the_authors_code(self, golden: Any) -> None:
        inputs, expected = golden("channel_importance")
        x, q = np.asarray(inputs["support"]), np.asarray(inputs["query"])
        y = np.arange(len(x)) % inputs["way"]
        nearest = make_pipeline(ChannelPower(), Unit(), Prototypes(metric="cosine")).fit(x, y)
        np.testing.assert_allclose(nearest[-1].logits(nearest[:-1].transform(q)), expected["nearest"], atol=1e-6)
        logistic = make_pipeline(Unit(), ChannelPower(), Logistic(tolerance=1e-6)).fit(x, y)
        np.testing.assert_allclose(logistic.predict_proba(q), expected["logistic"], atol=2e-4)
        signed = torch.tensor(inputs["signed"], dtype=torch.float64)
        np.testing.assert_allclose(ChannelPower().apply({}, signed), expected["simple_transform"], atol=1e-6)

    def test_warns_about_centred_features(self, blobs: Any) -> None:
        x = blobs()[0]
        with pytest.warns(UserWarning, match="centred"):
            ChannelPower().fit(x - x.mean(0))

    def test_refusals(self) -> None:
        with pytest.raises(BadInput, match="k must be"):
            ChannelPower(k=0.0).fit(positive(3, 2))
        with pytest.raises(BadInput, match=r"feature \(1, 0\) is -2; give signed=True"):
            ChannelPower(signed=False).fit([[1.0, 2.0], [-2.0, 1.0]])


class TestChannels:
    @pytest.mark.paper(19, oracle="e", part="diagnostics")
    def test_the_oracle_equals_the_authors_code(self, golden: Any) -> None:
        inputs, expected = golden("channel_importance")
        multiplier = oracle_multiplier(np.asarray(inputs["first"]), np.asarray(inputs["second"]))
        assert multiplier[5] == 0  # a channel that is always 0
        x, q = np.asarray(inputs["oracle_support"]) * multiplier, np.asarray(inputs["oracle_query"]) * multiplier
        head = make_pipeline(Unit(), Prototypes(metric="cosine")).fit(x, [0, 1, 0, 1])
        np.testing.assert_allclose(head[-1].logits(head[:-1].transform(q)), expected["oracle"], atol=1e-6)

    @pytest.mark.paper(19, oracle="d", part="diagnostics")
    def test_finds_the_planted_channels(self) -> None:
        draw = np.random.default_rng(0)
        first, second = np.abs(draw.normal(size=(500, 8))), np.abs(draw.normal(size=(500, 8)))
        first[:, [1, 6]] = 0.01 + 0.001 * draw.normal(size=(500, 2))
        second[:, [1, 6]] = 0.03 + 0.001 * draw.normal(size=(500, 2))
        importance = channel_importance(first, second)
        assert set(importance.argsort()[-2:].tolist()) == {1, 6}
        assert np.linalg.norm(importance) == pytest.approx(1)
        assert mean_magnitude(first).argsort()[:2].tolist() in ([1, 6], [6, 1])
        assert (oracle_multiplier(first, second, cap=1e-3)[[1, 6]] == 1).all()

    def test_refusals(self) -> None:
        with pytest.raises(BadInput, match="3 and 4 channels"):
            channel_importance(positive(2, 3), positive(2, 4))
        with pytest.raises(BadInput, match="row 0, column 1"):
            mean_magnitude(np.array([[1.0, np.nan]]))


class TestPowerAndLossless:
    """The steps of paper 042 that need no queries; its oracles judge the transport plan, which is not built yet."""

    def inductive(self, base: np.ndarray) -> Pipeline:
        chain = Chain(steps=(Power(), Unit(), Center())).fit(base)
        return make_pipeline(FrozenEstimator(chain), Prototypes())

    @pytest.mark.parametrize("width", [6, 80])
    def test_lossless_coordinates_give_the_same_labels_and_probabilities(self, width: int) -> None:
        support, query = torch.as_tensor(positive(8, width)) + 0.1, torch.as_tensor(positive(20, width, seed=1))
        steps = Chain(steps=(Power(), Unit()))
        support, query = steps.apply({}, support), steps.apply({}, query)
        small_s, small_q = lossless(support, query)
        assert small_s.shape[-1] == small_q.shape[-1] == min(width, 28)
        y = np.arange(8) % 2
        plain = Prototypes().fit(support.numpy(), y)
        less = Prototypes().fit(small_s.numpy(), y)
        assert np.array_equal(plain.predict(query.numpy()), less.predict(small_q.numpy()))
        np.testing.assert_allclose(less.predict_proba(small_q.numpy()), plain.predict_proba(query.numpy()), atol=1e-4)

    def test_a_rotation_after_the_power_leaves_the_probabilities(self) -> None:
        x, q, base = positive(8, 12), positive(20, 12, seed=1), positive(40, 12, seed=2)
        y = np.arange(8) % 2
        turn = np.linalg.qr(np.random.default_rng(3).normal(size=(12, 12)))[0]
        plain = self.inductive(base).fit(x, y).predict_proba(q)
        power = Power().fit(base)
        rotate = lambda z: power.transform(z) @ turn  # noqa: E731
        rest = FrozenEstimator(Chain(steps=(Unit(), Center())).fit(rotate(base)))
        turned = make_pipeline(rest, Prototypes()).fit(rotate(x), y).predict_proba(rotate(q))
        np.testing.assert_allclose(turned, plain, atol=1e-5)

    @settings(max_examples=30, deadline=None)
    @given(st.floats(0.1, 2.0), st.lists(st.floats(0, 10), min_size=1, max_size=6))
    def test_power_is_the_formula(self, beta: float, values: list[float]) -> None:
        x = torch.tensor(values, dtype=torch.float64)[None]
        np.testing.assert_allclose(Power(beta=beta).apply({}, x), (x.numpy() + 1e-6) ** beta, rtol=1e-12)
        signed = Power(beta=beta, signed=True).apply({}, -x)
        np.testing.assert_allclose(signed, -(x.numpy() ** beta), rtol=1e-12)

    def test_power_zero_is_the_logarithm(self) -> None:
        x = positive(3, 4)
        np.testing.assert_allclose(Power(beta=0.0).fit_transform(x), np.log(x + 1e-6))

    @pytest.mark.parametrize("params", [{"beta": -1.0}, {"beta": 0.0, "signed": True}, {"eps": -1.0}])
    def test_powers_that_make_no_sense(self, params: dict[str, Any]) -> None:
        with pytest.raises(BadInput):
            Power(**params).fit(positive(3, 2))


def test_logistic_on_lossless_coordinates_is_the_same_classifier() -> None:
    x, q = torch.as_tensor(positive(9, 50)), torch.as_tensor(positive(30, 50, seed=1))
    y = np.arange(9) % 3
    small_x, small_q = lossless(x, q)
    want = LogisticRegression(tol=1e-8, max_iter=5000).fit(x.numpy(), y).predict_proba(q.numpy())
    np.testing.assert_allclose(
        Logistic(tolerance=1e-6).fit(small_x.numpy(), y).predict_proba(small_q.numpy()), want, atol=1e-4
    )


def test_a_chain_works_on_batches_of_tasks() -> None:
    chain, draw = Chain.letters("MEME"), torch.Generator().manual_seed(0)
    x = torch.randn(3, 7, 5, generator=draw, dtype=torch.float64)
    weight = torch.ones(3, 7, dtype=torch.float64)
    weight[1, 5:] = 0
    batch = chain.apply(chain.learn(x, weight), x)
    for b, n in ((0, 7), (1, 5), (2, 7)):
        alone = chain.fit(x[b, :n].numpy()).transform(x[b, :n].numpy())
        np.testing.assert_allclose(batch[b, :n], alone, atol=1e-12)
