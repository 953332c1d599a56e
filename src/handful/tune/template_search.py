"""Which words to put around a text, written by a model that fills gaps (LM-BFF's auto-T, Gao et al. 2020, section 5.2).

    text <gap 0> answer <gap 1>                                 one text, and with the text behind the gaps
    text 0 without its last sign <gap 0> answer <gap 1> text 1  two texts

Every training example makes one input, with the answer of its class. One beam search for all: the decoder's logits are
averaged over the examples at each step, a sequence's score is the sum of the log-softmax of those means. A piece ends
at the next gap's token or the end of sequence; two pieces make a template.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from handful.encode.lm import LanguageModel
from handful.encode.template import Template
from handful.errors import BadInput

ONE = (
    ("*cls**sentu_0**<extra_id_0>**label_0**<extra_id_1>**sep+*", "*cls**sent_0*{}*mask*{}*sep+*", "head"),
    ("*cls*.*<extra_id_0>**label_0**<extra_id_1>**+sentu_0**sep+*", "*cls*{}*mask*{}*+sent_0**sep+*", "tail"),
)
TWO = (
    ("*cls**sent-_0**<extra_id_0>**label_0**<extra_id_1>**+sentl_1**sep+*",
     "*cls**sent-_0*{}*mask*{}*+sentl_1**sep+*", None),
)  # fmt: skip
"""What is asked, the template that comes of it, and at which end a long input is cut to `READ` tokens."""
READ = 256
FORBIDDEN = ("▁", "....", "..........")
"""Tokens of no use: a lone space, rows of dots."""


@dataclass(frozen=True)
class Sequenced:
    """A sequence of the beam: its tokens, its score, and how many pieces are complete."""

    tokens: tuple[int, ...]
    score: float
    pieces: int = 0


def beam_search(
    step: Callable[[Sequence[tuple[int, ...]]], Tensor],
    *,
    gap: Callable[[int], int],
    end: int,
    beam: int = 100,
    length: int = 20,
    pieces: int = 2,
    forbidden: Sequence[int] = (),
    once: int | None = None,
) -> list[Sequenced]:
    """The best sequences, complete ones and others, best first.

    Args:
        step: logits of the next token ``[m, V]`` after each of m sequences.
        gap: the token of gap number i; gap 1 ends the first piece, gap 2 the second.
        end: the end of sequence, which ends a piece as well.
        beam: sequences kept.
        length: of the decoder's input; two less are generated.
        pieces: after so many a sequence is complete.
        forbidden: tokens never taken.
        once: a token (the full stop) never taken twice in a row.
    """
    kept = [Sequenced((), 0.0)]
    for _ in range(length - 2):
        open_ones = [one for one in kept if one.pieces < pieces]
        if not open_ones:
            break
        logs = step([one.tokens for one in open_ones]).log_softmax(-1)
        logs[:, list(forbidden)] = float("-inf")
        grown = [one for one in kept if one.pieces >= pieces]
        for one, row in zip(open_ones, logs, strict=True):
            if once is not None and one.tokens and one.tokens[-1] == once:
                row[once] = float("-inf")
            best = row.topk(min(beam, len(row)))
            for value, token in zip(best.values.tolist(), best.indices.tolist(), strict=True):
                if value > float("-inf"):
                    done = token in (gap(one.pieces + 1), end)
                    grown.append(Sequenced((*one.tokens, token), one.score + value, one.pieces + done))
        kept = sorted(grown, key=lambda one: -one.score)[:beam]
    return kept


def search_templates(
    infiller: LanguageModel,
    texts: Sequence[Sequence[str]],
    labels: Sequence[Any],
    words: Mapping[Any, str],
    *,
    beam: int = 100,
    batch: int = 32,
) -> list[tuple[Template, float]]:
    """Templates for a task, with their scores; of single texts half from each of the two places of the text.

    Args:
        infiller: a seq2seq model whose tokenizer has tokens for gaps, such as T5.
        texts: one or two texts an example.
        labels: of the examples.
        words: the answer of each class.
        beam: templates at most.
        batch: examples a forward pass.

    Raises:
        BadInput: the model fills no gaps; an example has another number of texts than one or two; a label has no word.
    """
    gaps = [infiller.tokenizer.convert_tokens_to_ids(f"<extra_id_{i}>") for i in range(3)]
    if infiller.kind != "seq2seq" or len({*gaps, infiller.tokenizer.unk_token_id, None}) < 5:
        raise BadInput(f"{infiller.name!r} fills no gaps: templates need a model with <extra_id_0>, such as T5")
    counts = {len(item) for item in texts}
    if counts not in ({1}, {2}):
        raise BadInput(f"examples have {sorted(counts)} texts; templates are found for one each, or two each")
    if missing := [label for label in labels if label not in words]:
        raise BadInput(f"label {missing[0]!r} has no word; give the answer of each class")
    answers = {label: infiller.tokenizer.encode(" " + word, add_special_tokens=False) for label, word in words.items()}
    plans = ONE if counts == {1} else TWO
    out: list[tuple[Template, float]] = []
    for asked, made, cut in plans:
        inputs = [
            Template(asked).encode(
                infiller.tokenizer, item, answers=[answers[label]], most=READ if cut else None, cut_head=cut == "head"
            )
            for item, label in zip(texts, labels, strict=True)
        ]
        found = beam_search(
            _averaged(infiller, inputs, batch), gap=gaps.__getitem__, end=infiller.tokenizer.eos_token_id, beam=beam,
            forbidden=_known(infiller.tokenizer, FORBIDDEN), once=next(iter(_known(infiller.tokenizer, ".")), None),
        )  # fmt: skip
        written = ((_written(infiller.tokenizer, one, gaps, made), one.score) for one in found)
        out += [(template, score) for template, score in written if template is not None][: beam // len(plans)]
    return out


def _averaged(infiller: LanguageModel, inputs: Sequence[Any], batch: int) -> Callable[[Any], Tensor]:
    """The decoder's logits after each sequence, averaged over all inputs; each input is encoded once."""
    tower, body = infiller.tower, infiller.tower.body
    encoded = []
    with torch.inference_mode():
        for at in range(0, len(inputs), batch):
            some = tower.inputs(inputs[at : at + batch])
            encoded.append((body.get_encoder()(**some).last_hidden_state, some["attention_mask"]))  # type: ignore[operator]
    first = int(body.config.decoder_start_token_id)  # type: ignore[union-attr, arg-type]

    def step(sequences: Sequence[tuple[int, ...]]) -> Tensor:
        rows = []
        with torch.inference_mode():
            for tokens in sequences:
                total: Any = 0.0
                for h, mask in encoded:
                    before = torch.tensor([(first, *tokens)]).expand(len(h), -1)
                    logits = body(encoder_outputs=(h,), attention_mask=mask, decoder_input_ids=before).logits
                    total = total + logits[:, -1].sum(0)
                rows.append(total / len(inputs))
            return torch.stack(rows).clone()

    return step


def _known(tokenizer: Any, tokens: Sequence[str]) -> list[int]:
    ids = [tokenizer.convert_tokens_to_ids(token) for token in tokens]
    return [one for one in ids if one is not None and one != tokenizer.unk_token_id]


def _written(tokenizer: Any, one: Sequenced, gaps: Sequence[int], made: str) -> Template | None:
    """The template that a sequence says: ``<gap 0> piece <gap 1> piece <gap 2>``; ``None`` if it says none."""
    tokens = list(one.tokens)
    if one.pieces < 2 or tokens[:1] != [gaps[0]] or tokens.count(gaps[1]) != 1:
        return None
    middle = tokens.index(gaps[1])
    pieces = tokens[1:middle], tokens[middle + 1 : -1]
    texts = ["".join(tokenizer.convert_ids_to_tokens(piece)) for piece in pieces]
    if any("*" in text for text in texts) or {*pieces[0], *pieces[1]} & {*gaps, tokenizer.eos_token_id}:
        return None
    try:
        return Template(made.format(*(text.replace("▁", "_") for text in texts)))
    except BadInput:  # what it says looks like a variable
        return None
