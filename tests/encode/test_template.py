"""The template mini-language."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny_lm

from handful.encode.template import Template
from handful.encode.weights import MINILM_TOKENIZER
from handful.errors import BadInput

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "lm_bff.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def minilm() -> Any:
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_file=str(MINILM_TOKENIZER.path()), cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]",
        pad_token="[PAD]", unk_token="[UNK]",
    )  # fmt: skip


@pytest.mark.paper(12, oracle="b")
def test_tokens_are_those_of_the_reference(minilm: Any) -> None:
    refused = 0
    for row in GOLDEN["templates"]:
        template = Template(row["template"])
        options = {key: row[key] for key in ("first", "others", "most", "cut_head")}

        def encoded(template: Template = template, row: Any = row, options: Any = options) -> Any:
            return template.encode(minilm, row["texts"], answers=[[2307], [6659]], support=[1], **options)

        if row["ids"] is None:
            refused += 1
            with pytest.raises(BadInput, match="the mask was cut off"):
                encoded()
        else:
            prompt = encoded()
            assert [list(prompt.ids), list(prompt.segments), list(prompt.masks)] == [
                row["ids"], row["segments"], row["mask"],
            ], row["template"]  # fmt: skip
    assert refused == 2 and len(GOLDEN["templates"]) == 60


def test_words_behind_the_template() -> None:
    tokenizer = tiny_lm.byte_tokenizer()
    prompt = Template("*cls**sent_0*_It_was*mask*.*sep+*").encode(tokenizer, ["The film was great."])
    assert tokenizer.decode(prompt.ids) == "<s>The film was great. It was<mask>.</s>"
    assert prompt.ids[prompt.masks[0]] == tokenizer.mask_token_id
    t5 = tiny_lm.gap_tokenizer()
    filled = Template("*cls**sentu_0**<extra_id_0>**label_1**<extra_id_1>**sep+*").encode(
        t5, ["a film"], answers=[[7], [9, 12]]
    )
    assert t5.convert_ids_to_tokens(list(filled.ids)) == [
        "a", "film", "<extra_id_0>", "great", "bad", "<extra_id_1>", "</s>",
    ]  # fmt: skip


def test_demonstrations_follow_class_by_class() -> None:
    tokenizer = tiny_lm.word_tokenizer()
    pair = Template("*cls**sent-_0*?*mask*,*+sentl_1**sep+*").with_demonstrations(6)
    assert pair.texts == 14 and pair.parts.count("cls") == 1
    assert pair.source.endswith("*sent-_12*?*label_5*,*+sentl_13**sep+*")  # the tenth number is whole
    assert "*sent-_10*?*label_4*,*+sentl_11*" in pair.source
    single = Template("*cls**sent_0*_It_was*mask*.*sep+*").with_demonstrations(2)
    prompt = single.encode(tokenizer, ["a film", "dull", "moving"], answers=[[12], [11]])
    assert tokenizer.decode(list(prompt.ids)) == (
        "[CLS] a film it was [MASK]. [SEP] dull it was terrible. [SEP] moving it was great. [SEP]"
    ).replace("[MASK].", "[MASK] .").replace("terrible.", "terrible .").replace("great.", "great .")
    assert prompt.segments[-1] == 2 and len(prompt.masks) == 1


def test_examples_in_context_stand_at_either_end() -> None:
    base = Template("*cls**sent_0*_It_was*mask*.*sep+*")
    tail, head = base.in_context(2), base.in_context(2, at="head")
    assert tail.source == base.source + "*sent_1*_It_was*labelx_0*.*sep+*" + "*sent_2*_It_was*labelx_1*.*sep+*"
    assert head.source == "*sent_2*_It_was*labelx_1*.*sep+*" + "*sent_1*_It_was*labelx_0*.*sep+*" + base.source
    with pytest.raises(BadInput, match="not 'middle'"):
        base.in_context(2, at="middle")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("*cls**sent_0**mask**mask*", "has 2 masks"),
        ("*cls**sentt_0**mask*", "no variable 'sentt_0'"),
        ("*cls**+sent-_0**mask*", "no variable '\\+sent-_0'"),
        ("*cls**sent_x**mask*", "no variable 'sent_x'"),
        ("*label_a**mask*", "no variable 'label_a'"),
        ("", "is empty"),
    ],
)
def test_what_is_no_template_is_refused(source: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        Template(source)


@pytest.mark.parametrize("cut_head", [False, True])
def test_a_mask_in_a_text_is_no_question(cut_head: bool) -> None:
    tokenizer, template = tiny_lm.word_tokenizer(), Template("*cls**sent_0*_it_was*mask**+sent_1**sep*")
    plain = template.encode(tokenizer, ["a film", "so"], most=7, cut_head=cut_head)
    other = template.encode(tokenizer, ["a [MASK]", "so"], most=7, cut_head=cut_head)
    assert other.masks == plain.masks and tokenizer.mask_token_id in other.ids[: other.masks[0]]
    with pytest.raises(BadInput, match="mask was cut off"):
        template.encode(tokenizer, ["[MASK]", "a"], most=3)


def test_what_a_template_asks_for_must_be_there() -> None:
    tokenizer = tiny_lm.word_tokenizer()
    with pytest.raises(BadInput, match="asks for text 1, but 1 are given"):
        Template("*sent_0**sent_1**mask*").encode(tokenizer, ["a"])
    with pytest.raises(BadInput, match="asks for answer 1, but 0 are given"):
        Template("*sent_0**label_1*").encode(tokenizer, ["a"])
    with pytest.raises(BadInput, match="mask was cut off, as no more than 3 tokens"):
        Template("*sent_0**mask*").encode(tokenizer, ["a film was great"], most=3)
    with pytest.raises(BadInput, match="'mask', which the tokenizer of this model does not have"):
        Template("*sent_0**mask*").encode(tiny_lm.gap_tokenizer(), ["a film"])
