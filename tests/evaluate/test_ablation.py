"""Tricks left out one at a time."""

from __future__ import annotations

import numpy as np
import pytest

from handful.adapt.fscil_tricks import FSCILTricks
from handful.adapt.teen import TEEN
from handful.errors import BadInput
from handful.evaluate.ablation import ablate
from handful.evaluate.incremental import incremental_step

DRAW = np.random.default_rng(0)
CENTRES = DRAW.normal(size=(6, 8))
LABELS = np.repeat(np.arange(6), 5)
X, Q = (CENTRES[LABELS] + DRAW.normal(size=(30, 8)) for _ in range(2))
OLD = LABELS < 4
DATA = ((X[OLD], LABELS[OLD]), (X[~OLD], LABELS[~OLD]), (Q, LABELS))


def test_all_each_left_out_and_none() -> None:
    head = FSCILTricks(tricks=("etf", "supcon"), epochs=3, width=16, slots=8)
    rows = ablate(*DATA, head=head, seeds=(0, 1))
    assert [(row.tricks, row.without) for row in rows] == [
        (("supcon", "etf"), None),
        (("etf",), "supcon"),
        (("supcon",), "etf"),
        ((), None),
    ]
    plain = incremental_step(LABELS, TEEN(alpha=0.0).fit(*DATA[0]).grow(*DATA[1]).predict(Q), range(4))
    assert rows[-1].base.value == pytest.approx(plain.base)
    assert rows[-1].novel.value == pytest.approx(plain.novel)
    assert all(row.base.low <= row.base.value <= row.base.high for row in rows)


def test_refusals() -> None:
    with pytest.raises(BadInput, match="one seed"):
        ablate(*DATA, seeds=())
    with pytest.raises(BadInput, match="no items of new classes"):
        ablate(DATA[0], DATA[1], DATA[0], head=FSCILTricks(tricks=("subnet",), epochs=1, width=8))
