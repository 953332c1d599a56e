"""A model of several labels an item, judged on items it has not seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from handful.errors import BadInput
from handful.evaluate.label_set_assessment import LabelSetAssessment
from handful.evaluate.label_sets import assess_label_sets
from handful.read.labels import LabelSets

if TYPE_CHECKING:
    from handful.adapt.base import Features
    from handful.ship.model import Model


def assess_sets(
    model: Model, sets: LabelSets, features: Features, cells: Sequence[str], groups: Sequence[str] | None
) -> LabelSetAssessment:
    """The model's labels of encoded items beside those of ``cells``, as a `handful.read.Dataset` has them.

    Raises:
        BadInput: a label the model does not know.
    """
    unknown = sorted({label for cell in cells for label in sets.split(cell)} - set(model.classes))
    if unknown:
        raise BadInput(f"label {unknown[0]!r} is none of the model's labels: {', '.join(model.classes[:8])}")
    truth = sets.table(cells, model.classes)
    return assess_label_sets(truth, model.proba_of(features), model.said_of(features), model.classes, groups=groups)
