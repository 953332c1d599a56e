"""The embedded text encoder: the official vectors, whatever stands beside a text."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from handful.encode.minilm import MAX_TOKENS, MiniLM
from handful.encode.texts import token_batches
from handful.errors import BadInput, BadItem

GOLDEN = Path(__file__).parents[1] / "golden" / "minilm.json"
TEXTS = [
    "Where is my card?",
    "no",
    "A transfer I did not make is on my statement; please take it back.",
    "Top up failed",
]


@pytest.fixture(scope="module")
def exact() -> MiniLM:
    return MiniLM("float32")


@pytest.fixture(scope="module")
def fast() -> MiniLM:
    return MiniLM("bfloat16")


def test_vectors_are_those_of_sentence_transformers(exact: MiniLM) -> None:
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    vectors = exact.encode(golden["sentences"], cache=False)
    np.testing.assert_allclose(vectors[:, :8], golden["vectors"], atol=1e-5)


def test_vectors_are_unit_float32(exact: MiniLM) -> None:
    vectors = exact.encode(TEXTS, cache=False)
    assert vectors.shape == (4, 384) and vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_neighbours_do_not_matter(exact: MiniLM) -> None:
    together = exact.encode(TEXTS * 30 + ["word " * 200], cache=False)
    alone = np.concatenate([exact.encode([text], cache=False) for text in TEXTS])
    np.testing.assert_allclose(together[:4], alone, atol=1e-6)


def test_order_is_kept_and_equal_texts_are_equal(exact: MiniLM) -> None:
    shuffled = [TEXTS[i] for i in (2, 0, 3, 1, 2)]
    vectors = exact.encode(shuffled, cache=False)
    np.testing.assert_allclose(vectors[[1, 3, 0, 2]], exact.encode(TEXTS, cache=False), atol=1e-6)
    assert (vectors[0] == vectors[4]).all()


def test_the_same_bits_every_time(fast: MiniLM) -> None:
    assert fast.encode(TEXTS, cache=False).tobytes() == fast.encode(TEXTS, cache=False).tobytes()


def test_bfloat16_keeps_the_direction(exact: MiniLM, fast: MiniLM) -> None:
    cosines = (exact.encode(TEXTS, cache=False) * fast.encode(TEXTS, cache=False)).sum(1)
    assert cosines.min() > 0.9995


def test_precision_is_in_the_fingerprint_but_not_in_the_identity(exact: MiniLM, fast: MiniLM) -> None:
    assert exact.identity == fast.identity
    assert exact.fingerprint != fast.fingerprint
    assert MiniLM("auto").fingerprint in (exact.fingerprint, fast.fingerprint)


def test_unknown_precision_names_the_nearest() -> None:
    with pytest.raises(BadInput, match="did you mean 'float32'"):
        _ = MiniLM("float23").fingerprint  # type: ignore[arg-type]


def test_threads_of_the_caller_are_left_alone(fast: MiniLM) -> None:
    before = torch.get_num_threads(), torch.get_num_interop_threads()
    fast.encode(TEXTS, cache=False)
    assert (torch.get_num_threads(), torch.get_num_interop_threads()) == before


@pytest.mark.parametrize(
    ("item", "message"), [("", "empty"), (" \n\t", "empty"), (None, "NoneType"), (3.5, "float"), (b"bytes", "bytes")]
)
def test_what_is_no_text_is_named_with_its_place(exact: MiniLM, item: object, message: str) -> None:
    with pytest.raises(BadItem, match=message) as caught:
        exact.encode(["fine", item], cache=False)
    assert caught.value.index == 1 and "\n" not in str(caught.value)


def test_bad_texts_can_be_left_empty(exact: MiniLM) -> None:
    vectors = exact.encode(["fine", "", "also fine"], cache=False, bad="nan")
    assert np.isnan(vectors).all(axis=1).tolist() == [False, True, False]


def test_a_string_is_not_a_list_of_texts(exact: MiniLM) -> None:
    with pytest.raises(BadInput, match="list of items"):
        exact.encode("a text")


def test_no_texts_give_no_rows(exact: MiniLM) -> None:
    assert exact.encode([], cache=False).shape == (0, 384)
    assert exact.class_text([]).shape == (0, 384)


def test_half_a_surrogate_pair_is_a_text(exact: MiniLM) -> None:
    assert np.isfinite(exact.encode(["broken \ud83d emoji"], cache=False)).all()


def test_what_stands_after_the_limit_is_not_read(exact: MiniLM) -> None:
    start = "word " * MAX_TOKENS
    vectors = exact.encode([start, start + "refund " * 1000], cache=False)
    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-6)
    assert exact.truncated(["word", "word " * (MAX_TOKENS - 2), "word " * (MAX_TOKENS - 1), ""]).tolist() == [
        False,
        False,
        True,
        False,
    ]


def test_a_megabyte_of_text_is_one_text(fast: MiniLM) -> None:
    assert np.isfinite(fast.encode(["Where is my card? " * 60_000], cache=False)).all()


def test_progress_reaches_the_end(fast: MiniLM) -> None:
    seen: list[tuple[int, int]] = []
    fast.encode([*TEXTS, TEXTS[0]], cache=False, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (5, 5)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_batches_hold_every_text_once_and_keep_to_the_budget() -> None:
    lengths = np.random.default_rng(0).integers(3, 257, 500)
    batches = list(token_batches(lengths.tolist(), 2048))
    assert sorted(position for batch in batches for position in batch) == list(range(500))
    assert max(lengths[batch].sum() for batch in batches) <= 2048 + 256
    assert (np.diff(lengths[np.concatenate(batches)]) >= 0).all()
