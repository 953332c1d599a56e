"""Does a classifier of pairs of texts cheat by the words that the two share?

The heuristic says that texts which share their words belong together (entailment, paraphrase, same). Items of a
challenge set all share their words; for one half the heuristic is right, for the other it is not. A model that follows
it is right on the first half only: the gap between the halves is what it cheats.

072, Avoiding Inference Heuristics in Few-shot Prompt-based Finetuning (2021); challenge sets are HANS (McCoy et al.
2019), PAWS (Zhang et al. 2019) and the scramble tests of Dasgupta et al. (2018).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from handful.core.intervals import Estimate, difference, wilson
from handful.errors import BadInput, nearest

OTHER = "other"


@dataclass(frozen=True)
class Halves:
    """Accuracy on the two halves, each with its interval.

    Args:
        supported: where the heuristic is right.
        contradicting: where it is wrong.
        by_case: of each kind of item in each half, by ``(kind, "supported" | "contradicting")``.
    """

    supported: Estimate
    contradicting: Estimate
    by_case: Mapping[tuple[str, str], Estimate]

    @property
    def gap(self) -> Estimate:
        """How much better the supported half is: what is won by the heuristic."""
        return difference(self.supported, self.contradicting)


def heuristic_audit(
    gold: Sequence[str], predicted: Sequence[str], together: str, *,
    answers: Mapping[str, str] | None = None, cases: Sequence[str] | None = None,
) -> Halves:  # fmt: skip
    """Accuracy apart for items where sharing words means what the heuristic says, and where it does not.

    Args:
        gold: true labels ``[n]``; an item whose label is ``together`` supports the heuristic.
        predicted: ``[n]``, in the labels of ``gold``, or in those of ``answers``.
        together: the label that the heuristic gives.
        answers: by label of the classifier the label of the challenge set, such as ``{"entailment": "entailment",
            "neutral": "non-entailment", "contradiction": "non-entailment"}``.
        cases: kind of each item ``[n]``, such as ``"subsequence"``.

    Raises:
        BadInput: lengths differ; a label or an answer is not known; one half is empty.
    """
    n = len(gold)
    if len(predicted) != n or (cases is not None and len(cases) != n):
        raise BadInput(f"{n} true labels, but {len(predicted)} predicted ones{'' if cases is None else ' or cases'}")
    labels = sorted(set(gold))
    if together not in labels or len(labels) < 2:
        raise BadInput(f"the set needs items of label {together!r} and of another; it has {', '.join(labels[:8])}")
    if answers is not None and together not in answers.values():
        raise BadInput(f"no answer means {together!r}: declare which with answers=")
    said = [label if answers is None else answers.get(label, OTHER) for label in predicted]
    declared = {*labels, *(answers or {}).values()}  # an answer may mean what no item is, and is wrong then
    for given, meant in zip(predicted, said, strict=True):
        if meant not in declared:
            known = labels if answers is None else sorted(answers)
            raise BadInput(f"answer {given!r} is no label of the set{nearest(given, known)}; map it with answers=")
    right = np.asarray(said) == np.asarray(gold)
    supports = np.asarray(gold) == together
    kinds = np.asarray([""] * n if cases is None else cases)

    def rate(rows: np.ndarray) -> Estimate:
        return wilson(float(right[rows].sum()), float(rows.sum()))

    halves = {"supported": supports, "contradicting": ~supports}
    by_case = {
        (str(kind), half): rate(rows & (kinds == kind))
        for kind in sorted(set(kinds.tolist()))
        for half, rows in halves.items()
        if bool((rows & (kinds == kind)).any())
    }
    return Halves(rate(supports), rate(~supports), by_case if cases is not None else {})


_PEOPLE = ("doctor", "lawyer", "actor", "student", "judge", "banker", "author", "senator", "artist", "manager")
_VERBS = ("saw", "helped", "thanked", "called", "advised", "admired", "avoided", "supported")
_ALONE = ("slept", "ran", "danced", "waited", "arrived", "paused")
_TEMPLATES: Mapping[tuple[str, bool], tuple[str, str]] = {
    ("lexical overlap", True): ("the {a} and the {b} {v} the {c}", "the {b} {v} the {c}"),
    ("lexical overlap", False): ("the {a} {v} the {b}", "the {b} {v} the {a}"),
    ("subsequence", True): ("the {a} {v} the {b} near the {c}", "the {a} {v} the {b}"),
    ("subsequence", False): ("the {a} near the {b} {i}", "the {b} {i}"),
    ("constituent", True): ("because the {a} {i} , the {b} {v} the {c}", "the {a} {i}"),
    ("constituent", False): ("if the {a} {i} , the {b} {v} the {c}", "the {a} {i}"),
}
"""By kind of overlap and whether the second text follows from the first."""


def make_overlap_pairs(n: int, seed: int = 0) -> list[tuple[str, str, str, str]]:
    """A small challenge set after HANS: ``(premise, hypothesis, label, kind)``, every word of the second in the first.

    Args:
        n: pairs of each of three kinds and two labels.
        seed: of the words.
    """
    if n < 1:
        raise BadInput(f"make at least one pair of each kind, not {n}")
    rng, out = np.random.default_rng(seed), []
    for (kind, follows), (premise, hypothesis) in _TEMPLATES.items():
        for _ in range(n):
            a, b, c = rng.choice(_PEOPLE, 3, replace=False)
            words = {"a": a, "b": b, "c": c, "v": rng.choice(_VERBS), "i": rng.choice(_ALONE)}
            label = "entailment" if follows else "non-entailment"
            out.append((premise.format(**words), hypothesis.format(**words), label, kind))
    return out
