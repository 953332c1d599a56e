"""`check_head`: the contract every head keeps, as a test that works for a head of yours too.

>>> from handful.adapt import head
>>> from handful.testing import check_head
>>> check_head(head("prototypes"))

It asks of the batched core that what should not matter does not matter (padding, order, how examples are grouped into
batches), that weights and soft labels mean what they say, that closed-form leave-one-out is leaving one out; and of the
scikit-learn face that bad input is refused in one line and that a fitted head survives being saved.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from sklearn.base import clone

from handful.adapt.base import Head
from handful.testing import core, face
from handful.testing.tasks import made_up_task

__all__ = ["CHECKS", "check_head", "made_up_task"]

CHECKS: Mapping[str, Callable[[Head], None]] = {**core.CHECKS, **face.CHECKS}
"""The checks by name, in the order they run."""


def check_head(head: Head, *, expected_failures: Mapping[str, str] | None = None) -> None:
    """Raise `AssertionError`, saying what is wrong, unless ``head`` keeps the contract.

    Args:
        head: an unfitted head; its parameters are kept, class text and views are made up as its ``needs`` say.
        expected_failures: names of checks (of `CHECKS`) the nature of the method forbids, with the reason. One that
            passes after all is an error too, so that the list stays true.
    """
    expected = dict(expected_failures or {})
    if unknown := expected.keys() - CHECKS.keys():
        raise ValueError(f"no such check: {', '.join(sorted(unknown))}; there are: {', '.join(CHECKS)}")
    for name, check in CHECKS.items():
        try:
            with torch.random.fork_rng(devices=[]):
                check(clone(head))
        except Exception as error:
            if name not in expected:
                what = error if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}"
                raise AssertionError(f"{type(head).__name__} fails the check {name!r}: {what}") from error
        else:
            if name in expected:
                raise AssertionError(f"{type(head).__name__} passes the check {name!r}, which it was expected to fail")
