"""`handful advise models` and `handful advise raters`: what files of answers and of ratings say of models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from handful.errors import BadInput
from handful.evaluate.rasch import Forecast, Solver, forecast_scores
from handful.evaluate.ratings import Claim, ModelRating, aggregate, check_claims, geometric, read_sheet, weighted
from handful.evaluate.written import number, written_table
from handful.read.delimited import decode
from handful.read.places import file_bytes, quoted


@dataclass(frozen=True)
class Rated:
    """What raters say: of each model (`ModelRating`), and of each claim."""

    models: tuple[ModelRating, ...]
    claims: tuple[Claim, ...]

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        claims = [
            {"better": c.better, "worse": c.worse, "holds": c.holds, "difference": c.test.difference.as_dict()}
            for c in self.claims
        ]
        return {"models": [model.as_dict() for model in self.models], "claims": claims}


def advise_raters(
    sheets: Sequence[str | Path],
    *,
    claim: Sequence[str] | None = None,
    overall: Literal["geometric", "weighted"] = "geometric",
) -> Rated:
    """Scores of generators from the sheets of their raters, and how far the raters agree (ImagenHub, paper 156).

    Args:
        sheets: a file a rater, tab-separated: images in the first column, a column a model, cells ``[SC, PQ]`` of 0,
            0.5 or 1: how well the image keeps what was asked for, and how natural it looks.
        claim: pairs to check, ``"A>B"``: is model A better than B on the same images?
        overall: O from the two: ``"geometric"``, sqrt(SC PQ), or ``"weighted"``, 0.7 SC + 0.3 PQ.

    Raises:
        BadInput: fewer than two sheets, a cell that is no such pair, sheets of other models or images, a claim of a
            model there is not.
    """
    if overall not in ("geometric", "weighted"):
        raise BadInput(f"--overall is geometric or weighted, not {overall!r}")
    how = geometric if overall == "geometric" else weighted
    read = [read_sheet(decode(file_bytes(path), Path(path).name), Path(path).name) for path in sheets]
    return Rated(tuple(aggregate(read, how)), tuple(check_claims(read, [_pair(c) for c in claim or ()], how)))


def _pair(claim: str) -> tuple[str, str]:
    better, sign, worse = (part.strip() for part in claim.partition(">"))
    if not (better and sign and worse):
        raise BadInput(f"--claim is the better model, > and the other, such as 'A>B', not {claim!r}")
    return better, worse


@dataclass(frozen=True)
class Unrun:
    """Scores on each version, measured or predicted; see `handful.evaluate.rasch.Forecast`."""

    versions: tuple[str, ...]
    found: Forecast

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        f = self.found
        each = zip(f.models, f.ability, zip(*f.scores, strict=True), zip(*f.measured, strict=True), strict=True)
        models = [
            {
                "model": model,
                "ability": ability,
                "scores": [
                    {"version": v, "score": s, "measured": m}
                    for v, s, m in zip(self.versions, scores, measured, strict=True)
                ],
            }
            for model, ability, scores, measured in each
        ]
        return {"versions": list(self.versions), "models": models, "rerun": list(f.rerun)}


def advise_models(versions: Sequence[str | Path], *, rerun: int = 5, solver: Solver = "exact", seed: int = 0) -> Unrun:
    """Scores of all models on all versions of a benchmark, of those too that were not run (LiveXiv, paper 173).

    Args:
        versions: a table a version, in their order: a row a model that was run, its name in the first column, and a
            column a question, from 0 (wrong) to 1 (right). Models share their names over versions; questions need not.
        rerun: how many models to run on the next version; new models are always run.
        solver: ``"exact"`` goes to the optimum; ``"adam"`` is the authors' optimiser, which stops before it.
        seed: of the start of ``"adam"``.

    Raises:
        BadInput: a table that cannot be read, a model twice, a cell that is no number from 0 to 1, more models to run
            than there are.
    """
    tables = [_answers(path) for path in versions]
    found = forecast_scores(
        [np.array(list(t.values())) for t in tables], [list(t) for t in tables], rerun, solver=solver, seed=seed
    )
    names = [Path(path).stem for path in versions]
    twice = len(set(names)) < len(names)
    return Unrun(tuple(map(str, versions) if twice else names), found)


def _answers(path: str | Path) -> Mapping[str, list[float]]:
    """Answers of each model of a table, in its order."""
    table = written_table(path)
    questions = table.frame.columns[1:]
    if not questions:
        raise BadInput(f"{table.name} has one column: models, and a column for each question, are needed")
    found: dict[str, list[float]] = {}
    for row, place in zip(table.frame.iter_rows(), table.where, strict=True):
        model = str(row[0] or "").strip()
        if not model or model in found:
            raise BadInput(f"{place}: model {quoted(model)} is there twice" if model else f"{place} names no model")
        found[model] = [
            number(cell, f"{place}, column {quoted(question)}")
            for cell, question in zip(row[1:], questions, strict=True)
        ]
        if wrong := next((q for q, a in zip(questions, found[model], strict=True) if not 0 <= a <= 1), None):
            raise BadInput(f"{place}, column {quoted(wrong)}: an answer is from 0 (wrong) to 1 (right)")
    if not found:
        raise BadInput(f"{table.name} has no row: a row for each model is needed")
    return found
