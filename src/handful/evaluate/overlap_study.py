"""How fine-tuning on few pairs teaches a classifier to go by shared words: the study of paper 072 (Utama et al.,
Avoiding Inference Heuristics in Few-shot Prompt-based Finetuning, 2021, sections 2 and 3).

    shots     K = 0 (the prompt alone), 16, 32, …, 512 pairs a class, drawn anew with each seed
    beside    accuracy on pairs of the same kind, and on a challenge set, of which the heuristic is right on one half
              and wrong on the other: `handful.evaluate.heuristics`
    sets      HANS after MNLI, PAWS of QQP after QQP, the scramble tests after SNLI

    study = overlap_study(fit, pairs, labels, test_pairs, test_labels, read_hans(FILE))

``fit`` is any way to learn: `PromptClassifier` with ``steps=0`` for no pairs, with ``update=Anchored().update`` for the
remedy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from handful.core.intervals import Estimate, wilson
from handful.errors import BadInput
from handful.evaluate.heuristics import Halves, heuristic_audit
from handful.read.delimited import records

Pairs = Sequence[tuple[str, str]]
Predict = Callable[[Pairs], Sequence[str]]
Fit = Callable[[Pairs, Sequence[str], int], Predict]
SHOTS = (0, 16, 32, 64, 128, 256, 512)
SEEDS = (13, 21, 42, 87, 100)
"""Of the few-shot splits of paper 012, whose templates the study takes."""
_NLI = {"entailment": "entailment", "neutral": "non-entailment", "contradiction": "non-entailment"}
_SCRAMBLED = {"0": "contradiction", "1": "neutral", "2": "entailment"}


@dataclass(frozen=True)
class Challenge:
    """A challenge set, see `heuristic_audit`.

    Args:
        pairs: n of them.
        labels: of each, in the set's words.
        together: the label that the heuristic gives.
        answers: by label of the classifier that of the set; they are the same without.
        cases: kind of each pair.
    """

    pairs: Pairs
    labels: Sequence[str]
    together: str
    answers: Mapping[str, str] | None = None
    cases: Sequence[str] | None = None

    def judge(self, predict: Predict) -> Halves:
        """Accuracy on both halves."""
        return heuristic_audit(
            self.labels, list(predict(self.pairs)), self.together, answers=self.answers, cases=self.cases
        )


@dataclass(frozen=True)
class Row:
    """One run.

    Attributes:
        shots: pairs a class that were learnt from.
        seed: of the draw.
        same: accuracy on pairs of the same kind.
        challenge: on both halves of the challenge set.
    """

    shots: int
    seed: int
    same: Estimate
    challenge: Halves


@dataclass(frozen=True)
class Study:
    """What `overlap_study` gives: its runs, and their means."""

    rows: tuple[Row, ...]

    def means(self) -> dict[int, tuple[float, float, float]]:
        """By shots the mean over seeds of three accuracies: same kind, supported half, contradicting half."""
        out = {}
        for shots in dict.fromkeys(row.shots for row in self.rows):
            own = [row for row in self.rows if row.shots == shots]
            every = [(r.same.value, r.challenge.supported.value, r.challenge.contradicting.value) for r in own]
            same, supported, contradicting = np.mean(every, axis=0).tolist()
            out[shots] = (same, supported, contradicting)
        return out


def overlap_study(
    fit: Fit,
    pairs: Pairs,
    labels: Sequence[str],
    test_pairs: Pairs,
    test_labels: Sequence[str],
    challenge: Challenge,
    *,
    shots: Sequence[int] = SHOTS,
    seeds: Sequence[int] = SEEDS,
) -> Study:
    """Learn from more and more pairs; see `handful.evaluate.overlap_study`.

    Args:
        fit: learns from some pairs, labels and a seed, and gives what predicts; asked with no pairs at 0 shots.
        pairs, labels: what is drawn from.
        test_pairs, test_labels: of the same kind.
        challenge: the challenge set.
        shots: pairs a class.
        seeds: of the draws; at 0 shots only the first counts.

    Raises:
        BadInput: a class has fewer pairs than shots; nothing to test on; not every pair is answered.
    """
    if len(pairs) != len(labels) or len(test_pairs) != len(test_labels) or not len(test_pairs):
        raise BadInput(f"{len(pairs)} pairs and {len(labels)} labels, {len(test_pairs)} and {len(test_labels)} to test")
    if not shots or not seeds or min(shots) < 0:
        raise BadInput("give numbers of shots, of 0 or more, and seeds")
    of = {name: [row for row, label in enumerate(labels) if label == name] for name in sorted(set(labels))}
    for name, own in of.items():
        if len(own) < max(shots):
            raise BadInput(f"class {name!r} has {len(own)} pairs, but {max(shots)} shots are asked for")
    rows = []
    for k in shots:
        for seed in seeds[: 1 if k == 0 else None]:
            rng = np.random.default_rng(seed)
            drawn = [own[i] for own in of.values() for i in rng.permutation(len(own))[:k].tolist()]
            predict = fit([pairs[i] for i in drawn], [labels[i] for i in drawn], seed)
            answers = list(predict(test_pairs))
            if len(answers) != len(test_labels):
                raise BadInput(f"fit gave what answers {len(answers)} of {len(test_labels)} pairs; it must answer each")
            right = sum(said == true for said, true in zip(answers, test_labels, strict=True))
            rows.append(Row(k, seed, wilson(right, len(test_labels)), challenge.judge(predict)))
    return Study(tuple(rows))


def read_hans(path: str | Path) -> Challenge:
    """HANS from its ``heuristics_evaluation_set.txt``, for classifiers of entailment, neutral and contradiction."""
    columns = ("gold_label", "sentence1", "sentence2", "heuristic")
    rows = records(path, columns, separator="\t", quoted=False)
    pairs = [(row["sentence1"], row["sentence2"]) for row in rows]
    return Challenge(pairs, [row["gold_label"] for row in rows], "entailment", _NLI, [row["heuristic"] for row in rows])


def read_paws(path: str | Path) -> Challenge:
    """PAWS of QQP from a file ``id, sentence1, sentence2, label``, for classifiers that answer "1" for a paraphrase."""
    rows = records(path, ("sentence1", "sentence2", "label"), separator="\t", quoted=False)
    return Challenge([(row["sentence1"], row["sentence2"]) for row in rows], [row["label"] for row in rows], "1")


def read_scramble(folder: str | Path, kinds: Sequence[str] = ("same_short",)) -> Challenge:
    """The scramble tests from files ``s1.comp_KIND``, ``s2.comp_KIND`` and ``labels.comp_KIND``.

    Args:
        folder: where they are.
        kinds: ``same``, ``not`` or ``ml``, each ``_short`` or ``_long``; the paper takes ``same``.

    Raises:
        BadInput: a file is not there, or of another length; a label that is none of 0, 1 and 2.
    """
    pairs, labels, cases = [], [], []
    for kind in kinds:
        first, second, codes = (_lines(Path(folder) / f"{part}.comp_{kind}") for part in ("s1", "s2", "labels"))
        if not len(first) == len(second) == len(codes):
            raise BadInput(f"the files of comp_{kind} in {folder} differ in length")
        if unknown := sorted(set(codes) - set(_SCRAMBLED)):
            raise BadInput(f"labels.comp_{kind} in {folder} has the label {unknown[0]!r}; they are 0, 1 and 2")
        pairs += list(zip(first, second, strict=True))
        labels += [_SCRAMBLED[code] for code in codes]
        cases += [kind] * len(codes)
    return Challenge(pairs, labels, "entailment", {name: name for name in _NLI}, cases)


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        raise BadInput(f"there is no file {path}")
    return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
