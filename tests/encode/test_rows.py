"""Rows: packed is the same as one by one, chained as one text; logits where they are asked are those of all places."""

from __future__ import annotations

import pytest
import tiny_lm
import torch

from handful.encode.prompt import Prompt
from handful.encode.rows import Row, chained, packed
from handful.errors import BadInput

PAIRS = [((5, 6, 7), (8, 9)), ((10, 11), (12,)), ((13, 14, 15, 16), (17, 18, 19)), ((20,), (21, 22))]
ROWS = [chained([pair]) for pair in PAIRS]


def one_by_one(model: object, row: Row) -> torch.Tensor:
    """Of the model as it is, a token at a time."""
    ids = torch.tensor([row.ids])
    logits = model.tower.body(input_ids=ids).logits[0].log_softmax(-1)  # type: ignore[attr-defined]
    return torch.stack([logits[at - 1, row.ids[at]] for at in row.learnt])


def gpt2() -> object:
    from transformers import GPT2Config, GPT2LMHeadModel

    from handful.encode.lm import LanguageModel

    tokenizer = tiny_lm.byte_tokenizer()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        body = GPT2LMHeadModel(
            GPT2Config(vocab_size=len(tokenizer), n_embd=16, n_layer=2, n_head=2, n_positions=48, initializer_range=0.5)
        )
    return LanguageModel(body.eval(), tokenizer, "causal")


@pytest.mark.parametrize("make", [lambda: tiny_lm.tiny("causal"), gpt2], ids=["llama", "gpt2"])
@pytest.mark.parametrize("most", [5, 9, 14, 40])
@pytest.mark.paper(121, oracle="c")
@torch.no_grad()
def test_packed_is_the_same_as_one_by_one(make: object, most: int) -> None:
    model = make()  # type: ignore[operator]
    if most < 7:
        with pytest.raises(BadInput, match="row 2 has 7 tokens, more than the 5"):
            packed(ROWS, most)
        return
    rows = packed(ROWS, most)
    assert len(rows) < len(ROWS) or most == 7
    found = model.tower(rows)
    assert [block for row in rows for block in row.blocks()] == ROWS  # no token lost or repeated
    alone = torch.cat([one_by_one(model, row) for row in ROWS])
    torch.testing.assert_close(found[found > float("-inf")], alone, atol=1e-5, rtol=1e-5)


@pytest.mark.paper(109, oracle="e")
@torch.no_grad()
def test_chained_answers_see_all_that_stands_before_them() -> None:
    model = tiny_lm.tiny("causal")
    found = model.tower([chained(PAIRS)])[0, 0]
    before: tuple[int, ...] = ()
    sums = []
    for given, answer in PAIRS:
        before += given
        sums.append(model.tower.likelihoods([Prompt.of(before, None)], [[answer]]).sum())
        before += answer
    torch.testing.assert_close(found.sum(), torch.stack(sums).sum(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["masked", "roberta", "causal"])
@torch.no_grad()
def test_logits_where_they_are_asked_are_those_of_all_places(kind: str) -> None:
    model = tiny_lm.tiny(kind)
    prompts = [Prompt.of(ids, None) for ids in [(5, 6, 7, 8), (9, 10), (11, 12, 13)]]
    inputs, at = model.tower.inputs(prompts), torch.tensor([[0, 3], [1, 0], [2, 2]])
    whole = model.tower.body(**inputs).logits
    shapes: list[int] = []
    hook = model.tower.body.get_output_embeddings().register_forward_hook(lambda m, i, out: shapes.append(out.shape[1]))
    found = model.tower._logits(inputs, at)
    hook.remove()
    torch.testing.assert_close(found, whole[torch.arange(3)[:, None], at])
    assert shapes == [2]  # the head saw no other place


@torch.no_grad()
def test_answers_that_differ_in_their_last_token_share_a_row() -> None:
    model = tiny_lm.tiny("causal")
    seen: list[int] = []
    hook = model.tower.body.model.register_forward_hook(lambda m, i, out: seen.append(len(out.last_hidden_state)))
    model.score(["it was", "a film was"], ["good", "bad", "very good", "very bad"])
    hook.remove()
    assert sum(seen) == 4  # two prompts, and each with "very" behind it


@torch.no_grad()
def test_states_of_every_layer_are_those_of_the_last_token() -> None:
    model = tiny_lm.tiny("causal")
    prompts = [Prompt.of((5, 6, 7), None), Prompt.of((9,), None)]
    found = model.tower.layers(prompts)
    for row, prompt in enumerate(prompts):
        states = model.tower.body(input_ids=torch.tensor([prompt.ids]), output_hidden_states=True).hidden_states
        torch.testing.assert_close(found[:, row], torch.stack([h[0, -1] for h in states]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"ids": (1, 2), "learnt": ()}, "nothing"),
        ({"ids": (1, 2), "learnt": (0,)}, "nothing"),
        ({"ids": (1, 2), "learnt": (2,)}, "nothing"),
        ({"ids": (1, 2, 3), "learnt": (1, 2), "begins": (0, 2)}, "first token of a block"),
    ],
)
def test_rows_that_make_no_sense(row: dict[str, tuple[int, ...]], why: str) -> None:
    with pytest.raises(BadInput, match=why):
        Row(**row)


def test_only_what_goes_on_with_a_text_reads_rows() -> None:
    with pytest.raises(BadInput, match="not a masked one"):
        tiny_lm.tiny("masked").tower(ROWS)
