"""Heads on several descriptions a class (CuPL, VDT, WCA) against the authors' numbers, and what they reduce to."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from handful.adapt import head
from handful.adapt.base import Features
from handful.adapt.mean_sentence import MeanAdapter, mean_sentence
from handful.adapt.vdt import SentenceAttention
from handful.adapt.wca import crop_boxes, weighted_class_vectors, weighted_image_vector
from handful.core.distances import unit
from handful.errors import BadInput
from handful.testing import check_head


def rows(*shape: int, seed: int = 0) -> torch.Tensor:
    return unit(torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))


def by_class(sentences: Any) -> dict[int, np.ndarray]:
    return dict(enumerate(np.asarray(sentences)))


class TestCuPL:
    def test_a_class_is_the_mean_direction_of_its_sentences(self, blobs: Any) -> None:
        x, y = blobs(ways=3)
        sentences = rows(3, 5, 10).numpy()
        text = {0: sentences[0], 1: sentences[1][:2], 2: sentences[2][:1]}
        fitted = head("cupl", text=text).fit(x, y)
        means = np.stack([rows_ / np.linalg.norm(rows_) for rows_ in (text[c].mean(0) for c in range(3))])
        cosines = x / np.linalg.norm(x, axis=1, keepdims=True) @ means.T
        np.testing.assert_allclose(fitted.logits(x), 100 * cosines, atol=1e-9)


class TestVDT:
    @pytest.mark.paper(33, oracle="a", part="attention")
    def test_without_attention_it_is_the_mean_of_normalised_sentences(self, blobs: Any) -> None:
        x, y = blobs(ways=3)
        sentences = rows(3, 4, 10)
        fitted = head("vdt", text=by_class(sentences), ratio=0.0, epochs=0).fit(x, y)
        normed = torch.nn.functional.layer_norm(2 * 10 * sentences, (10,)).mean(1)
        torch.testing.assert_close(fitted.state_["words"], unit(normed), atol=1e-6, rtol=0)

    @pytest.mark.paper(33, oracle="b", part="attention")
    def test_the_order_of_sentences_does_not_count(self) -> None:
        module, sentences, there = SentenceAttention(10), rows(3, 6, 10), torch.ones(3, 6, dtype=torch.bool)
        weights = module.start(0)
        order = torch.randperm(6, generator=torch.Generator().manual_seed(1))
        plain = module.class_vectors(weights, sentences, there, 0.5)
        torch.testing.assert_close(module.class_vectors(weights, sentences[:, order], there, 0.5), plain)
        longer = torch.cat([sentences, torch.full((3, 2, 10), 9.0, dtype=torch.float64)], 1)
        fewer = torch.cat([there, torch.zeros(3, 2, dtype=torch.bool)], 1)
        torch.testing.assert_close(module.class_vectors(weights, longer, fewer, 0.5), plain)

    @pytest.mark.paper(33, oracle="c", part="attention")
    def test_a_single_sentence_has_all_attention(self) -> None:
        module = SentenceAttention(10)
        there = torch.ones(3, 1, dtype=torch.bool)
        assert (module.attention(module.start(0), rows(3, 1, 10), there) == 1).all()

    @pytest.mark.paper(33, oracle="d", part="attention")
    def test_equals_the_authors_module(self, golden: Any) -> None:
        inputs, expected = golden("vdt")
        module, sentences = SentenceAttention(8), torch.as_tensor(np.asarray(inputs["sentences"]))
        n = sum(math.prod(size) for size in module.sizes)
        weights = torch.as_tensor(0.5 * np.random.default_rng(7).normal(size=n))
        there = torch.ones(sentences.shape[:2], dtype=torch.bool)
        words = module.class_vectors(weights, sentences, there, inputs["ratio"])
        np.testing.assert_allclose(words, expected["words"], atol=1e-8)

    def test_learns_to_do_without_sentences_that_are_wrong(self) -> None:
        draw = np.random.default_rng(0)
        ways, width = 6, 32
        centres = draw.normal(size=(ways, width))
        centres[:, 0] = 4.0  # what sentences that say something have in common
        wrong = draw.normal(size=(ways, 4, width)) + 3 * np.roll(centres, 1, axis=0)[:, None]
        wrong[..., 0] = -4.0
        good = centres[:, None] + 0.3 * draw.normal(size=(ways, 4, width))
        y = np.repeat(np.arange(ways), 8)
        x, new = (centres[y] + draw.normal(size=(len(y), width)) for _ in range(2))
        made = {"text": by_class(np.concatenate([good, wrong], 1)), "logit_scale": 20.0}
        fitted = head("vdt", epochs=60, lr=0.05, batch_size=48, ratio=0.9, dropout=0.1, **made).fit(x, y)
        mean = head("cupl", **made).fit(x, y)
        assert (fitted.predict(new) == y).mean() > (mean.predict(new) == y).mean() + 0.3

    def test_serves_classes_that_were_not_there(self, blobs: Any) -> None:
        x, y = blobs(ways=3)
        sentences = rows(3, 4, 10)
        fitted = head("vdt", text=by_class(sentences), epochs=2).fit(x, y)
        torch.testing.assert_close(fitted.class_vectors(sentences), fitted.state_["words"])
        assert fitted.class_vectors(rows(5, 2, 10, seed=3)).shape == (5, 10)
        with pytest.raises(BadInput, match=r"\[C, M, 10\]"):
            fitted.class_vectors(rows(5, 2, 9))

    @pytest.mark.parametrize("adapter", ["attention", "linear", "linear-residual"])
    def test_answers_for_classes_known_by_their_sentences_alone(self, blobs: Any, adapter: str) -> None:
        x, y = blobs(ways=3)
        text = by_class(rows(5, 4, 10)) | {7: rows(2, 10, seed=1).numpy()}  # fewer sentences than the others
        fitted = head("vdt", text=text, adapter=adapter, epochs=2).fit(x, y)
        assert fitted.unseen_.tolist() == [3, 4, 7]
        words = [fitted.class_vectors(torch.as_tensor(text[c])[None])[0] for c in (7, 0, 3)]
        cosines = x / np.linalg.norm(x, axis=1, keepdims=True) @ torch.stack(words).numpy().T
        np.testing.assert_allclose(fitted.logits(x, [7, 0, 3]), 100 * cosines, atol=1e-9)
        alone = head("vdt", text=by_class(rows(5, 4, 10)[:3]), adapter=adapter, epochs=2).fit(x, y)
        np.testing.assert_allclose(fitted.logits(x), alone.logits(x), atol=1e-9)

    def test_is_asked_for_classes_without_examples(self, blobs: Any) -> None:
        """Theirs may be fewer sentences."""
        x, y = blobs(ways=3)
        more = {7: rows(2, 10, seed=4).numpy(), 5: rows(4, 10, seed=5).numpy()}
        fitted = head("vdt", text=by_class(rows(3, 4, 10)) | more, epochs=2).fit(x, y)
        answers = fitted.logits(x, [7, 1, 5])
        seen = unit(torch.as_tensor(x))
        for column, label in ((0, 7), (2, 5)):
            words = fitted.class_vectors(torch.as_tensor(more[label])[None])
            np.testing.assert_allclose(answers[:, [column]], 100 * seen @ words.mT, atol=1e-9)
        np.testing.assert_allclose(answers[:, 1], fitted.logits(x)[:, 1], atol=1e-9)
        assert not np.allclose(answers[:, [0]], 100 * seen @ unit(torch.as_tensor(more[7]).mean(0, keepdim=True)).mT)

    def test_without_dropout_and_all_at_once_nothing_is_drawn_but_the_start(self) -> None:
        check_head(head("vdt", dropout=0.0, batch_size=64, epochs=2))

    @pytest.mark.parametrize(
        "bad",
        [{"adapter": "mean"}, {"ratio": 1.5}, {"dropout": 1.0}, {"lr": 0.0}, {"epochs": -1}, {"batch_size": 0}],
        ids=str,
    )
    def test_parameters_that_make_no_sense_are_refused(self, blobs: Any, bad: dict[str, Any]) -> None:
        x, y = blobs(ways=3)
        with pytest.raises(BadInput, match=f"^{next(iter(bad))} "):
            head("vdt", text=by_class(rows(3, 4, 10)), **bad).fit(x, y)


class TestMeanSentence:
    @pytest.mark.paper(33, oracle="d", part="text-adapters")
    @pytest.mark.parametrize(("adapter", "ratio"), [("linear", 1.0), ("linear-residual", 0.3)])
    def test_equals_the_authors_module(self, golden: Any, adapter: str, ratio: float) -> None:
        inputs, expected = golden("vdt_linear")
        sentences, images = (torch.as_tensor(np.asarray(inputs[name])) for name in ("sentences", "images"))
        draw = np.random.default_rng(1)
        weights = torch.as_tensor(np.concatenate([0.5 * draw.normal(size=size).ravel() for size in ((2, 8), (8, 2))]))
        means = mean_sentence(sentences, torch.ones(3, 4, dtype=torch.bool))
        words = MeanAdapter(8).class_vectors(weights, means, ratio)
        np.testing.assert_allclose(unit(images) @ words.mT, expected[adapter], atol=1e-8)

    @pytest.mark.paper(33, oracle="a", part="text-adapters")
    def test_without_the_adapter_it_is_the_mean_of_the_sentences(self, blobs: Any) -> None:
        x, y = blobs(ways=3)
        text = {0: rows(4, 10).numpy(), 1: rows(2, 10, seed=1).numpy(), 2: rows(1, 10, seed=2).numpy()}
        fitted = head("vdt", text=text, adapter="linear-residual", ratio=0.0, epochs=1).fit(x, y)
        np.testing.assert_allclose(fitted.logits(x), head("cupl", text=text).fit(x, y).logits(x), atol=1e-9)
        whole = head("vdt", text=text, adapter="linear-residual", ratio=1.0).fit(x, y)
        np.testing.assert_allclose(
            whole.logits(x), head("vdt", text=text, adapter="linear").fit(x, y).logits(x), atol=1e-9
        )

    @pytest.mark.paper(33, oracle="b", part="text-adapters")
    @pytest.mark.parametrize("adapter", ["linear", "linear-residual"])
    def test_the_order_of_sentences_does_not_count(self, blobs: Any, adapter: str) -> None:
        x, y = blobs(ways=3)
        sentences = rows(3, 4, 10)
        one, other = (
            head("vdt", text=by_class(given), adapter=adapter).fit(x, y).logits(x)
            for given in (sentences, sentences.flip(1))
        )
        np.testing.assert_allclose(one, other, atol=1e-9)

    @pytest.mark.parametrize("adapter", ["linear", "linear-residual"])
    def test_learns_what_turns_text_towards_items(self, adapter: str) -> None:
        """Class text in other axes than the items: the same map for every class brings it there."""
        draw = np.random.default_rng(0)
        centres = np.abs(draw.normal(size=(6, 32)))
        y = np.repeat(np.arange(6), 8)
        x, new = (centres[y] + 0.5 * draw.normal(size=(len(y), 32)) for _ in range(2))
        text = by_class(np.roll(centres, 5, axis=1)[:, None] + 0.1 * draw.normal(size=(6, 3, 32)))
        made = {"text": text, "logit_scale": 20.0, "adapter": adapter, "ratio": 0.8, "batch_size": 8, "lr": 0.1}
        before, after = ((head("vdt", epochs=n, **made).fit(x, y).predict(new) == y).mean() for n in (0, 60))
        assert before < 0.3 and after > 0.8


class TestWCA:
    @pytest.mark.paper(70, oracle="a")
    def test_the_double_sum_factorises(self, blobs: Any) -> None:
        x, y = blobs(ways=3)
        sentences, label, crops = rows(3, 4, 10), rows(3, 10, seed=1), rows(len(x), 6, 10, seed=2)
        text = by_class(torch.cat([label[:, None], sentences], 1))
        fitted = head("wca", text=text, normalize=False, logit_scale=1.0).fit(Features(x, {"crops": crops.numpy()}), y)
        w = (math.exp(4) * torch.einsum("nd,npd->np", unit(torch.as_tensor(x)), crops)).softmax(-1)
        v = (math.exp(2) * torch.einsum("cd,cmd->cm", label, sentences)).softmax(-1)
        double = torch.einsum("np,cm,npd,cmd->nc", w, v, crops, sentences)
        np.testing.assert_allclose(fitted.logits(Features(x, {"crops": crops.numpy()})), double, atol=1e-9)

    @pytest.mark.paper(70, oracle="b")
    def test_flat_weights_are_means_and_the_whole_image_alone_is_zero_shot(self, blobs: Any) -> None:
        x, y = blobs(ways=3)
        sentences, crops = rows(3, 4, 10), rows(2, 6, 10, seed=2)
        there = torch.ones(3, 4, dtype=torch.bool)
        flat = weighted_class_vectors(sentences, there, rows(3, 10, seed=1), -math.inf)
        torch.testing.assert_close(flat, sentences.mean(1))
        torch.testing.assert_close(weighted_image_vector(rows(2, 10), crops, -math.inf), crops.mean(1))
        text, whole = by_class(rows(3, 1, 10)), Features(x, {"crops": x[:, None]})
        ours = head("wca", text=text).fit(whole, y).logits(whole)
        np.testing.assert_allclose(ours, head("zero-shot", text=text).fit(x, y).logits(x), atol=1e-9)

    @pytest.mark.paper(70, oracle="c")
    def test_sharp_weights_pick_the_closest(self) -> None:
        sentences, label = rows(3, 4, 10), rows(3, 10, seed=1)
        sharp = weighted_class_vectors(sentences, torch.ones(3, 4, dtype=torch.bool), label, 12.0)
        best = (sentences @ label[..., None])[..., 0].argmax(-1)
        torch.testing.assert_close(sharp, sentences[torch.arange(3), best])
        x, crops = rows(2, 10), rows(2, 6, 10, seed=2)
        closest = (crops @ x[..., None])[..., 0].argmax(-1)
        torch.testing.assert_close(weighted_image_vector(x, crops, 12.0), crops[torch.arange(2), closest])

    @pytest.mark.paper(70, oracle="d")
    def test_the_same_seed_draws_the_same_crops(self, blobs: Any) -> None:
        x, y = blobs(ways=3)
        items = Features(x, {"crops": rows(len(x), 6, 10).numpy()})

        def logits(seed: int) -> Any:
            return head("wca", text=by_class(rows(3, 4, 10)), n_crops=3, random_state=seed).fit(items, y).logits(items)

        assert np.array_equal(logits(1), logits(1))
        assert not np.allclose(logits(1), logits(2))
        assert np.array_equal(crop_boxes(80, 60, 9, seed=1), crop_boxes(80, 60, 9, seed=1))
        assert not np.array_equal(crop_boxes(80, 60, 9, seed=1), crop_boxes(80, 60, 9, seed=2))

    @pytest.mark.paper(70, oracle="e")
    def test_equals_the_authors_code(self, golden: Any) -> None:
        inputs, expected = golden("wca")
        sentences, label, q, crops = (np.asarray(inputs[n]) for n in ("sentences", "labels", "query", "crops"))
        text = by_class(np.concatenate([label[:, None], sentences], 1))
        items = Features(q, {"crops": crops})
        fitted = head("wca", text=text, logit_scale=1.0).fit(items, np.array([0, 1, 2, 0, 1]))
        np.testing.assert_allclose(fitted.state_["words"], expected["words"], atol=1e-8)
        np.testing.assert_allclose(fitted.logits(items), expected["logits"], atol=1e-8)

    def test_is_asked_for_classes_without_examples(self, blobs: Any) -> None:
        """Examples are not looked at, so that it does not matter which classes have some."""
        x, y = blobs(ways=4)
        items = Features(x, {"crops": rows(len(x), 6, 10).numpy()})
        text = by_class(rows(4, 5, 10))
        every = head("wca", text=text).fit(items, y)
        some = head("wca", text=text).fit(Features(x[y < 2], {"crops": items.views["crops"][y < 2]}), y[y < 2])
        assert some.unseen_.tolist() == [2, 3]
        np.testing.assert_allclose(some.logits(items, [3, 0, 2, 1]), every.logits(items)[:, [3, 0, 2, 1]], atol=1e-9)

    def test_a_class_without_sentences_is_its_label_prompt(self, blobs: Any) -> None:
        x, y = blobs(ways=3)
        label, items = rows(3, 10, seed=1), Features(x, {"crops": rows(len(x), 6, 10).numpy()})
        text = {0: label[0].numpy(), 1: torch.cat([label[[1]], rows(3, 10)]).numpy(), 2: label[2].numpy()}
        words = head("wca", text=text).fit(items, y).state_["words"]
        torch.testing.assert_close(words[[0, 2]], label[[0, 2]])
        assert not torch.allclose(words[1], label[1])

    def test_crops_lie_in_the_image(self) -> None:
        boxes = crop_boxes(100, 60, 500)
        sides = boxes[:, 2:] - boxes[:, :2]
        assert (sides[:, 0] == sides[:, 1]).all()
        assert sides.min() >= 30 and sides.max() <= 54
        assert boxes.min() >= 0 and boxes[:, 2].max() <= 100 and boxes[:, 3].max() <= 60
        with pytest.raises(BadInput, match="too small"):
            crop_boxes(3, 100)
        with pytest.raises(BadInput, match="low <= high"):
            crop_boxes(100, 100, low=0.9, high=0.5)
        with pytest.raises(BadInput, match="n must be"):
            crop_boxes(100, 100, 0)

    def test_crops_of_other_axes_or_width_are_refused(self, blobs: Any) -> None:
        x, y = blobs(ways=3)
        fresh = head("wca", text=by_class(rows(3, 4, 10)))
        for crops in (x, x[:, None, None], x[:, None][:, :0], np.full(len(x), "crop")):
            with pytest.raises(BadInput, match=r"view 'crops' holds numbers \[n, places, d\]"):
                fresh.fit(Features(x, {"crops": crops}), y)
        fitted = fresh.fit(Features(x, {"crops": x[:, None]}), y)
        with pytest.raises(BadInput, match="view 'crops' has width 9, but WCA knows 10"):
            fitted.predict(Features(x, {"crops": x[:, None, :9]}))

    @pytest.mark.parametrize("bad", [{"label_prompt": "last"}, {"image_scale": math.inf}, {"n_crops": 0}], ids=str)
    def test_parameters_that_make_no_sense_are_refused(self, blobs: Any, bad: dict[str, Any]) -> None:
        x, y = blobs(ways=3)
        with pytest.raises(BadInput, match=f"^{next(iter(bad))} "):
            head("wca", text=by_class(rows(3, 4, 10)), **bad).fit(Features(x, {"crops": x[:, None]}), y)
