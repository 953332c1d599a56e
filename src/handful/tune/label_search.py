"""Which words a class answers with, found from a few examples (LM-BFF's auto-L, Gao et al. 2020, section 5.1).

likely        of each class the `likely` words with the highest mean logit at the mask, without any training;
              only such as begin a word
neighbours    where seed words are given, of those the ones nearest to the seed, by cosine of the head's rows
tuples        all of one candidate a class, scored by how many examples the largest logit gets right
              (of numbers: Pearson's correlation with the second word's share; twice the same word: -1)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from handful.encode.lm import LanguageModel
from handful.encode.prompt import SPACE, LabelWords, Prompt
from handful.errors import BadInput

CHUNK = 1 << 22
"""Logits looked at together while tuples are scored."""
MOST_TUPLES = 1 << 28
"""More are not tried: ask for fewer likely words."""


def begins_word(tokenizer: Any, size: int) -> Tensor:
    """Which of ``size`` tokens begin a word ``[V]``, bool; special tokens do not."""
    tokens = [str(token) for token in tokenizer.convert_ids_to_tokens(list(range(min(size, len(tokenizer)))))]
    marks = tuple(mark for mark in (SPACE, "▁") if any(token.startswith(mark) for token in tokens))
    starts = [token.startswith(marks) if marks else not token.startswith("##") for token in tokens]
    starts += [False] * (size - len(starts))
    out = torch.tensor(starts)
    out[[i for i in tokenizer.all_special_ids if i < size]] = False
    return out


def find_words(
    logits: Tensor,
    targets: Tensor,
    *,
    ways: int | None = None,
    allowed: Tensor | None = None,
    seeds: Sequence[int] | None = None,
    vectors: Tensor | None = None,
    likely: int = 100,
    neighbours: int = 30,
    top: int = 100,
) -> list[tuple[tuple[int, ...], float]]:
    """The best tuples of words with their scores, best first; of equal ones the more likely first.

    Args:
        logits: at the mask ``[n, V]``.
        targets: classes ``[n]``, whole numbers; or, as floating point numbers, what lies between two words.
        ways: number of classes; by default one more than the highest.
        allowed: which tokens may be taken ``[V]``.
        seeds: a token a class to stay near to.
        vectors: the head's rows ``[V, d]``, for ``seeds``.
        likely: words a class.
        neighbours: of those, near the seed.
        top: tuples to give.

    Raises:
        BadInput: a class without examples; too many tuples.
    """
    numbers = targets.is_floating_point()
    ways = 2 if numbers else ways or int(targets.max()) + 1
    classes = (targets > targets.median()).long() if numbers else targets
    candidates = []
    for c in range(ways):
        own = logits[classes == c]
        if not len(own):
            raise BadInput(f"class {c} has no examples to find its word with")
        mean = own.mean(0) if allowed is None else own.mean(0).masked_fill(~allowed, float("-inf"))
        words = mean.argsort(descending=True, stable=True)[:likely]
        words = words[mean[words] > float("-inf")]
        if seeds is not None:
            if vectors is None:
                raise BadInput("seed words need vectors of all words")
            nearness = functional.cosine_similarity(vectors[words], vectors[seeds[c]][None], dim=1)
            words = words[nearness.argsort(descending=True, stable=True)[:neighbours]]
        candidates.append(words)
    total = math.prod(len(words) for words in candidates)
    if total > MOST_TUPLES:
        raise BadInput(f"{ways} classes of {len(candidates[0])} words make {total:,} tuples; take fewer likely words")
    scores, places = torch.empty(0), torch.empty(0, dtype=torch.long)
    step = max(1, CHUNK // (len(logits) * ways))
    for at in range(0, total, step):
        numbered = torch.arange(at, min(at + step, total))
        tuples = _tuples(candidates, numbered)
        found = _correlation(logits, targets, tuples) if numbers else _accuracy(logits, targets, tuples)
        scores, places = torch.cat([scores, found]), torch.cat([places, numbered])
        order = scores.argsort(descending=True, stable=True)[:top]
        scores, places = scores[order], places[order]
    best = _tuples(candidates, places).tolist()
    return [(tuple(words), score) for words, score in zip(best, scores.tolist(), strict=True)]


def search_label_words(
    model: LanguageModel,
    prompts: Sequence[Prompt],
    targets: Tensor,
    classes: Sequence[str],
    *,
    seeds: Mapping[str, str] | None = None,
    likely: int = 100,
    neighbours: int = 30,
    top: int = 100,
) -> list[tuple[LabelWords, float]]:
    """`find_words` on what ``model`` answers to ``prompts``: ``top`` ways to answer, with their scores.

    Args:
        model: masked, or causal.
        prompts: the examples in their template, see `LanguageModel.fill`.
        targets: see `find_words`.
        classes: names; of numbers those of the lower and the upper end.
        seeds: by class a word to stay near to, each one token.
        likely, neighbours, top: see `find_words`.

    Raises:
        BadInput: as `find_words`; a seed has several tokens, or a class has none.
    """
    logits = model.mask_logits(prompts)
    ids = None
    if seeds is not None:
        if missing := [name for name in classes if name not in seeds]:
            raise BadInput(f"class {missing[0]!r} has no seed word; give one for each class, or none")
        words = LabelWords.of(model.tokenizer, {name: seeds[name] for name in classes})
        ids = words.single.tolist()
    head: Any = model.tower.body
    found = find_words(
        logits, targets, ways=len(classes), allowed=begins_word(model.tokenizer, logits.shape[1]), seeds=ids,
        vectors=head.get_output_embeddings().weight.detach().float() if ids else None, likely=likely,
        neighbours=neighbours, top=top,
    )  # fmt: skip
    decoded = {token: str(model.tokenizer.decode([token])).strip() for words, _ in found for token in words}
    return [
        (LabelWords(tuple(classes), tuple(decoded[t] for t in words), tuple((t,) for t in words)), score)
        for words, score in found
    ]


def _tuples(candidates: Sequence[Tensor], numbered: Tensor) -> Tensor:
    """Tuple number i of all, the last class turning fastest ``[m, C]``."""
    columns = []
    for words in reversed(candidates):
        columns.append(words[numbered % len(words)])
        numbered = numbered // len(words)
    return torch.stack(columns[::-1], 1)


def _accuracy(logits: Tensor, labels: Tensor, tuples: Tensor) -> Tensor:
    return (logits[:, tuples].argmax(-1) == labels[:, None]).float().mean(0)


def _correlation(logits: Tensor, values: Tensor, tuples: Tensor) -> Tensor:
    share = logits[:, tuples].softmax(-1)[..., 1]
    share, values = share - share.mean(0), (values - values.mean())[:, None]
    r = (share * values).sum(0) / (share.square().sum(0) * values.square().sum()).sqrt().clamp_min(1e-30)
    return torch.where(tuples[:, 0] == tuples[:, 1], -1.0, r.to(torch.float32))
