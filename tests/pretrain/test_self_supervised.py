"""109: tasks made of plain text can be undone, are balanced, and only their answers are learnt."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tiny_lm
import torch

from handful.encode.lm import LanguageModel
from handful.encode.rows import Row
from handful.errors import BadInput
from handful.pretrain.blocks import SIGNS, Block, blocks_of, corrupted, ended, filled, lpp, mwp, nsg, sentences
from handful.pretrain.self_supervised import OBJECTIVES, Built, SelfSupervised, build, plain


@pytest.fixture(scope="module")
def built(causal: LanguageModel, documents: list[str]) -> Built:
    return build(causal, documents, length=700, seed=1)


@pytest.mark.paper(109, oracle="a")
def test_what_is_learnt_are_the_answers(causal: LanguageModel, built: Built) -> None:
    assert {instance.objective for instance in built.instances} == set(OBJECTIVES)
    for instance, row in zip(built.instances, built.rows, strict=True):
        assert len(instance.pairs) > 1 and len(row.ids) <= 700
        learnt = causal.tokenizer.decode([row.ids[at] for at in row.learnt])
        assert learnt == "".join(f" {answer}" for _, answer in instance.pairs)
        whole = "\n".join(f"Input: {given}\nOutput: {answer}" for given, answer in instance.pairs)
        assert causal.tokenizer.decode(row.ids) == whole


@pytest.mark.paper(109, oracle="b")
def test_builders_can_be_undone(documents: list[str]) -> None:
    rng = np.random.default_rng(0)
    blocks, short = blocks_of([*documents, "One. Two."], 4)
    assert short == 1 and all(len(block.sentences) >= 4 for block in blocks)
    for number, document in enumerate(documents):
        assert " ".join(b.text for b in blocks if b.document == number) == document
    for block in blocks:
        assert " ".join(nsg(block)) == block.text
        assert nsg(block)[1] == block.sentences[-1]
        masked, answer = mwp(block, rng) or ("", "")
        signs = sum(word in SIGNS for word in masked.split(" "))
        assert 1 <= signs == len(answer.split(" ")) <= 20
        assert filled(masked, answer) == block.text != masked
        assert ended(*lpp(block)) == block.text
    cut = lpp(Block(("We saw a ship.", "It lay in the harbour of Kiel."), 0))
    assert cut == ("We saw a ship. It lay in the harbour", "of Kiel.")
    assert lpp(Block(("Birds sang loudly.",), 0)) == ("Birds", "sang loudly.")  # no function word


@pytest.mark.paper(109, oracle="c")
def test_classes_are_balanced_and_what_they_say(causal: LanguageModel, documents: list[str], built: Built) -> None:
    originals = {block.text: block for block in blocks_of(documents, 4)[0]}
    lines = {line: block.document for block in originals.values() for line in block.sentences}
    seen: set[str] = set()
    for instance in (one for one in built.instances if one.objective == "clf"):
        counts = Counter(instance.kinds)
        assert 2 <= len({answer for _, answer in instance.pairs}) <= 3
        assert max(counts.values()) - min(counts.values()) <= 1
        assert len({(kind, answer) for kind, (_, answer) in zip(instance.kinds, instance.pairs, strict=True)}) == len(
            counts
        )  # a class has one name throughout
        for kind, (text, _) in zip(instance.kinds, instance.pairs, strict=True):
            seen.add(kind)
            found = [lines[line] for line in sentences(text)]
            share = Counter(found).most_common(1)[0][1] / len(found)
            if kind == "original":
                assert text in originals
            elif kind == "shuffled":
                assert text not in originals and share == 1
                assert any(sorted(sentences(text)) == sorted(block.sentences) for block in originals.values())
            elif kind == "mixed":
                assert 0.4 <= share <= 0.75  # others may come from one document too
            else:
                assert found == sorted(found, key=found.index) and len(set(found)) == 2
    assert seen >= {"original"} and len(seen) > 2


def test_half_of_a_mixed_block_is_others() -> None:
    rng = np.random.default_rng(0)
    others = [Block(tuple(f"Other {i} {j}." for j in range(6)), 1) for i in range(4)]
    for n in (4, 5, 6, 7):
        own = Block(tuple(f"Own {j}." for j in range(n)), 0)
        kept = sum(line.startswith("Own") for line in sentences(corrupted(own, "mixed", others, rng)))
        assert 0.4 <= kept / n <= 0.6
        gone_on = sentences(corrupted(own, "continued", others, rng))
        assert gone_on[: n - n // 2] == list(own.sentences[: n - n // 2]) and len(gone_on) == n
        assert tuple(gone_on[n - n // 2 :]) in {one.sentences[-(n // 2) :] for one in others}  # the end of one other


def test_same_seed_same_rows(causal: LanguageModel, documents: list[str], built: Built) -> None:
    assert build(causal, documents, length=700, seed=1).rows == built.rows
    assert build(causal, documents, length=700, seed=2).rows != built.rows


def test_plain_text_is_learnt_whole(causal: LanguageModel, documents: list[str]) -> None:
    rows = plain(causal, documents, 60)
    assert all(row.learnt == tuple(range(1, len(row.ids))) for row in rows)
    assert max(len(row.ids) for row in rows) == 60
    lengths = [len(causal.tokenizer.encode(text)) for text in documents]
    assert sum(len(row.ids) for row in rows) == sum(n - (n % 60 == 1) for n in lengths)  # one token follows on nothing


def test_training_lowers_the_loss_on_new_text(causal: LanguageModel, documents: list[str]) -> None:
    settings = replace(SelfSupervised().training, lr=1e-2, epochs=6, batch=2)
    method = SelfSupervised(objectives=("mwp", "nsg"), length=700, training=settings)
    tuned = method.fit(causal, documents[:9], seed=0)
    held = build(causal, documents[9:], objectives=("mwp", "nsg"), length=700).rows
    before = mean_loss(causal, held)
    with tuned.delta.attached(causal.tower):
        after = mean_loss(causal, held)
    assert after < before - 0.2
    assert mean_loss(causal, held) == before


@torch.no_grad()
def mean_loss(model: LanguageModel, rows: tuple[Row, ...]) -> float:
    found = model.tower(list(rows))
    return float(-found[found > float("-inf")].mean())


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"objectives": ("nsp",)}, "no objective 'nsp'"),
        ({"objectives": ()}, "at least one objective"),
        ({"sentences": 2}, "sentences must be a whole number from 3, not 2"),
        ({"sentences": 4.5}, "sentences must be a whole number from 3, not 4.5"),
        ({"seed": -1}, "seed must be a whole number from 0, not -1"),
        ({"sentences": 40}, "none of the 12 documents has 40 sentences"),
        ({"length": 40}, "no two examples fit into 40 tokens"),
    ],
)
def test_bad_input(causal: LanguageModel, documents: list[str], options: dict[str, object], why: str) -> None:
    with pytest.raises(BadInput, match=why):
        build(causal, documents, **options)  # type: ignore[arg-type]


def test_what_is_no_text_and_models_that_do_not_go_on(causal: LanguageModel, documents: list[str]) -> None:
    make: tuple[Any, ...] = (build, plain)
    for one in make:
        with pytest.raises(BadInput, match="a list of texts, not one"):
            one(causal, documents[0])
        with pytest.raises(BadInput, match="document 1 is nan, which is no text"):
            one(causal, [documents[0], float("nan")])
    for kind in ("masked", "seq2seq"):
        with pytest.raises(BadInput, match=f"'{kind}' is {kind}; .* a causal model"):
            build(tiny_lm.tiny(kind), documents)


def test_what_was_learnt_is_asked_without_a_sign_between() -> None:
    assert not SelfSupervised().training.framing.separator  # rows have none


def test_a_row_of_one_token_teaches_nothing(causal: LanguageModel, documents: list[str]) -> None:
    assert max(len(row.ids) for row in plain(causal, documents, 2)) == 2
    with pytest.raises(BadInput, match="two tokens at least"):
        plain(causal, documents, 0)


def test_one_document_has_no_other(causal: LanguageModel, documents: list[str]) -> None:
    with pytest.raises(BadInput, match="at least two documents"):
        build(causal, documents[:1])
    assert build(causal, documents[:1], objectives=("nsg",), length=700).rows


def test_what_is_left_out_is_counted(causal: LanguageModel, documents: list[str]) -> None:
    odd = "Signs *** stand here. Two. Three follows. Four is last. " * 2
    found = build(causal, [*documents, odd, "Too short."], objectives=("mwp",), length=700)
    assert found.left_out["short document"] == 1 and found.left_out["has a sign"] == 2
