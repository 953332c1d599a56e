"""Where does a method's prior knowledge enter, and which method fits what is at hand?

Paper 038: Wang, Yao, Kwok, Ni, "Generalizing from a Few Examples: A Survey on Few-Shot Learning", 2019. With few labels
the empirical risk says little of the true one, so a method brings knowledge from elsewhere: more *data*, a smaller
*model* to choose from, or an *algorithm* that starts well. Every head has one card that files it there. What a head
needs is in its own record (`handful.protocols.Needs`); the place is set where the record cannot tell (`PLACES`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from importlib import resources
from typing import Any, Literal

from handful.adapt import HEADS, head_class, list_heads
from handful.errors import BadInput, nearest
from handful.protocols import Needs

TAXONOMY: Mapping[str, str] = {
    "data/training-set": "transform the examples of the training set",
    "data/unlabelled": "use items without labels, or with weak ones",
    "data/similar-sets": "use items of similar data sets",
    "model/multitask/sharing": "tasks share parameters",
    "model/multitask/tying": "tasks keep parameters close",
    "model/embedding/task-specific": "an embedding made for the task",
    "model/embedding/task-invariant": "an embedding made elsewhere, kept as it is",
    "model/embedding/hybrid": "an embedding made elsewhere, changed by the task",
    "model/memory/refining": "a memory of representations that is refined",
    "model/memory/embeddings": "a memory that keeps the examples",
    "model/memory/parameters": "a memory of parameters",
    "model/generative/components": "generative, of components that are shared",
    "model/generative/groups": "generative, classes share a prior",
    "model/generative/inference": "generative, with an inference network",
    "algorithm/refine-existing/regularise": "refine what is there, and hold it back",
    "algorithm/refine-existing/aggregate": "refine what is there, by combining it",
    "algorithm/refine-existing/new-parameters": "refine what is there, with new parameters",
    "algorithm/refine-meta-learned": "refine parameters learnt over tasks",
    "algorithm/learn-optimiser": "learn how to refine",
}
"""Every place, and what happens there."""

PLACES: Mapping[str, str] = {
    "auto": "algorithm/refine-existing/aggregate",
    "gda": "model/generative/groups",
    "gpam": "model/generative/groups",
    "gfzsl": "model/generative/groups",
    "rfs": "data/training-set",
    "matching-networks": "model/memory/embeddings",
    "tip-adapter": "model/memory/embeddings",
    "tip-adapter-f": "model/memory/refining",
    "tip-x": "model/memory/embeddings",
    "ape": "model/memory/embeddings",
    "ape-t": "model/memory/refining",
    "mf-adapter": "model/memory/embeddings",
    "proto-clip": "model/memory/embeddings",
    "proto-clip-f": "model/memory/refining",
    "unifgvc": "model/memory/embeddings",
    "kernel-ridge": "algorithm/refine-existing/regularise",
    "proker": "algorithm/refine-existing/regularise",
    "logistic": "algorithm/refine-existing/regularise",
    "metaopt": "algorithm/refine-existing/regularise",
    "lp++": "algorithm/refine-existing/regularise",
    "prolip": "algorithm/refine-existing/regularise",
    "linear-adapter": "algorithm/refine-existing/regularise",
    "lfa": "algorithm/refine-existing/regularise",
    "label-description": "data/similar-sets",
    "real": "data/training-set",
    "vdt": "algorithm/refine-existing/new-parameters",
    "amu-tuning": "algorithm/refine-existing/new-parameters",
    "multi-modal-adapter": "algorithm/refine-existing/new-parameters",
    "unem": "algorithm/refine-meta-learned",
    "teen": "data/similar-sets",
    "sync": "model/multitask/sharing",
    "simpleshot": "model/embedding/task-invariant",
}
"""The place of heads whose record of needs does not tell it."""

HAVE: Mapping[str, tuple[str, ...]] = {
    "class-names": ("text",),
    "unlabelled": ("unlabelled", "transductive"),
    "all-queries": ("transductive",),
    "background": ("background",),
    "language-model": ("language_model",),
}
"""What a user may have, and the needs that it meets. Views (second encoders, regions) are named as they are."""
WORDS = {"text": "class names", "unlabelled": "unlabelled items", "transductive": "all queries at once"}
WORDS |= {"background": "base classes", "language_model": "a language model"}

Cost = Literal["closed form", "gradient", "one by one"]
COSTS: tuple[Cost, ...] = ("closed form", "gradient", "one by one")
"""How an episode is learnt, the cheapest first."""


@dataclass(frozen=True)
class MethodCard:
    """One head.

    Attributes:
        key: of the head; ``summary`` is its first sentence.
        papers: numbers of the papers it comes from.
        place: see `TAXONOMY`.
        needs: without what it cannot run, and what it assumes.
        cost: how an episode is learnt: many at once without or with gradient steps, or one by one.
        defaults: its own parameters.
    """

    key: str
    summary: str
    papers: tuple[int, ...]
    place: str
    needs: Needs
    cost: Cost
    defaults: Mapping[str, Any]

    @property
    def wants(self) -> tuple[str, ...]:
        """Needs that side information must meet, and names of views."""
        return (*(need for need in WORDS if getattr(self.needs, need)), *self.needs.views)


@cache
def cards() -> tuple[MethodCard, ...]:
    """A card for every head there is, in the order of `handful.adapt.HEADS`."""
    from handful.adapt.base import Head
    from handful.papers import papers

    common = {field.name for field in fields(Head)}
    entries = [(part.entry, p.number) for p in papers() for part in p.working]
    found = []
    for row in list_heads():
        cls, key = head_class(row["key"]), str(row["key"])
        numbers = tuple(dict.fromkeys(number for entry, number in entries if entry == HEADS.get(key)))
        own = {f.name: getattr(cls, f.name, None) for f in fields(cls) if f.name not in common}
        cost: Cost = (
            "one by one" if cls.needs.batched == "loop" else "gradient" if cls.needs.gradient else "closed form"
        )
        place = PLACES.get(key) or _place(cls.needs)
        found.append(MethodCard(key, str(row["summary"]), numbers, place, cls.needs, cost, own))
    return tuple(found)


def _place(needs: Needs) -> str:
    if needs.unlabelled or needs.transductive:
        return "data/unlabelled"
    if needs.background:
        return "data/similar-sets"
    if needs.gradient:
        return "algorithm/refine-existing/new-parameters"
    return "model/embedding/hybrid" if needs.text else "model/embedding/task-invariant"


def search(
    *, place: str | None = None, needs: Sequence[str] = (), needs_not: Sequence[str] = (), cost: Cost | None = None
) -> list[MethodCard]:
    """Cards by place, needs and cost.

    Args:
        place: a place of `TAXONOMY` or the beginning of one: ``"algorithm/refine-existing"``.
        needs, needs_not: fields of `handful.protocols.Needs` that must, or must not, be set.
        cost: how it learns.

    Raises:
        BadInput: a place or need there is not.
    """
    if place is not None and not any(path == place or path.startswith(f"{place}/") for path in TAXONOMY):
        raise BadInput(f"no place {place!r}{nearest(place, TAXONOMY)}; there are {', '.join(TAXONOMY)}")
    known = [field.name for field in fields(Needs)]
    if wrong := next((need for need in (*needs, *needs_not) if need not in known), None):
        raise BadInput(f"no need {wrong!r}{nearest(wrong, known)}")
    return [
        card
        for card in cards()
        if (place is None or card.place == place or card.place.startswith(f"{place}/"))
        and all(_set(card.needs, need) for need in needs)
        and not any(_set(card.needs, need) for need in needs_not)
        and (cost is None or card.cost == cost)
    ]


def _set(needs: Needs, need: str) -> bool:
    value = getattr(needs, need)
    return value == "loop" if need == "batched" else value > 1 if need == "min_shots" else bool(value)


@dataclass(frozen=True)
class Advice:
    """A method that applies.

    Attributes:
        card: of the method.
        behind: points of accuracy behind the best head measured in the same place, averaged over data sets at the
            nearest number of shots; ``None`` where it was not measured.
        sets: measurements (data set and number of shots) that this is the mean of.
        reasons: why it stands where it does.
    """

    card: MethodCard
    behind: float | None
    sets: int
    reasons: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        card = self.card
        return {
            "head": card.key,
            "summary": card.summary,
            "papers": list(card.papers),
            "place": card.place,
            "uses": list(card.wants),
            "cost": card.cost,
            "points_behind_best": self.behind,
            "sets": self.sets,
            "reasons": list(self.reasons),
        }


def recommend(
    have: Iterable[str] = (), shots: int = 5, cost: str | None = None, measured: Mapping[str, Any] | None = None
) -> list[Advice]:
    """The heads that can run with what is at hand, the measured ones first, best first.

    Then come those that use more of what is at hand. A head that cannot be measured here is not thereby worse; it is
    only not known to be better.

    Args:
        have: what there is beside labelled examples: words of `HAVE`, or names of views.
        shots: labelled examples a class.
        cost: the most a method may cost, of `COSTS`; ``"closed form"`` where there are no gradients or no time.
        measured: see `measurements`; by default those in the package.

    Raises:
        BadInput: shots below 1, or something that no head could use, or no such cost.
    """
    have = list(dict.fromkeys(have))
    views = {view for card in cards() for view in card.needs.views}
    if wrong := next((word for word in have if word not in HAVE and word not in views), None):
        known = [*HAVE, *sorted(views)]
        raise BadInput(f"no head knows what to do with {wrong!r}{nearest(wrong, known)}")
    if shots < 1:
        raise BadInput(f"shots must be at least 1, not {shots}")
    if cost is not None and cost not in COSTS:
        raise BadInput(f"no cost {cost!r}{nearest(cost, COSTS)}")
    cheap = COSTS if cost is None else COSTS[: COSTS.index(cost) + 1]
    measured = measurements() if measured is None else measured
    at = min(measured["shots"], key=lambda k: (abs(k - shots), k), default=None)
    table = measured["behind"].get(_kind("class-names" in have), {}).get(str(at), {})
    met = {need for word in have for need in HAVE.get(word, (word,))}
    found = [
        _advice(card, table.get(card.key), at)
        for card in cards()
        if set(card.wants) <= met and card.needs.min_shots <= shots and card.cost in cheap
    ]
    return sorted(
        found, key=lambda a: (a.behind is None, a.behind or 0.0, -len(a.card.wants), a.card.cost == "one by one")
    )


def _advice(card: MethodCard, row: Mapping[str, Any] | None, at: int | None) -> Advice:
    reasons = [TAXONOMY[card.place]]
    if row is not None:
        where = f"{row['sets']} measurements near {at} shots with the built-in encoders"
        reasons.append(f"{row['points']:.1f} points behind the best head, mean of {where}")
    if card.wants:
        reasons.append(f"uses {', '.join(WORDS.get(want, f'the view {want!r}') for want in card.wants)}")
    if card.needs.assumes_balanced:
        reasons.append("expects every class equally often among the queries")
    if card.needs.transductive:
        reasons.append("answers depend on the other queries")
    if card.cost != "closed form":
        reasons.append("trains by gradient steps" if card.cost == "gradient" else "learns episodes one by one")
    points, sets = (None, 0) if row is None else (float(row["points"]), int(row["sets"]))
    return Advice(card, points, sets, tuple(reasons))


def _kind(names: bool) -> str:
    return "names" if names else "plain"


@cache
def measurements() -> Mapping[str, Any]:
    """What ``benchmarks/advice.py`` made of the measured accuracies: ``shots`` and ``behind[kind][shots][head]``."""
    text = resources.files("handful.evaluate").joinpath("measured.json").read_text(encoding="utf-8")
    found: Mapping[str, Any] = json.loads(text)
    return found
