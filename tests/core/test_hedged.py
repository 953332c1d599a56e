"""Labels that are never quite certain."""

from __future__ import annotations

import torch

from handful.core.calibration import fit_scale, hedged


def test_rows_keep_their_weight_and_padding_gets_nothing() -> None:
    y = torch.tensor([[1.0, 0, 0], [0, 2.0, 0], [0, 0, 0]])
    mask = torch.tensor([True, True, False])
    found = hedged(y, mask)
    torch.testing.assert_close(found.sum(-1), y.sum(-1))
    assert (found[:, 2] == 0).all()
    torch.testing.assert_close(found[0], torch.tensor([0.9, 0.1, 0.0]))  # 1 / (3 + 2) shared by two classes


def test_a_flawless_record_does_not_make_certain() -> None:
    logits = torch.eye(4) * 3
    y, mask = torch.eye(4), torch.ones(4, dtype=torch.bool)
    t, _ = fit_scale(logits, hedged(y, mask), mask)
    p = (t * logits).softmax(-1).diagonal()
    torch.testing.assert_close(p, torch.full((4,), 1 - 1 / 6 + 1 / 24), atol=1e-4, rtol=0)
