"""Tuned encoders whose changes are compressed: what a model file keeps of them, and the encoder again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from handful.compress.compeft import Chosen, balanced, choose, task_vector, with_vector
from handful.compress.delta_file import CODE, compressed, expanded
from handful.errors import BadInput
from handful.protocols import Encoder
from handful.tune.delta_file import delta_of, tensors
from handful.tune.encoders import READING, encoder_with, tunable

File = tuple[dict[str, Any], dict[str, Tensor]]
"""What `handful.tune.encoders.as_file` gives: a description and tensors."""


def expanded_encoder(base: Encoder | None, described: Mapping[str, Any], state: Mapping[str, Tensor]) -> Encoder:
    """`handful.tune.encoders.encoder_with`, of changes that may be compressed. Raises `BadInput` as that."""
    if CODE in state:
        apart, rest = _apart(state)
        delta = expanded(tunable(base).tower(), described, rest)
        state = {**tensors(delta), **apart}
    return encoder_with(base, described, state)


def compressed_file(
    base: Encoder | None, file: File, score: Callable[[Encoder], float], densities: tuple[float, ...],
    alphas: tuple[float, ...],
) -> tuple[File, Chosen, int, int]:  # fmt: skip
    """The changes of an encoder compressed, LoRA `balanced` before.

    Args:
        base: the encoder they are made for.
        file: the changes.
        score: of the encoder with compressed changes in place; the best of ``densities`` and ``alphas`` is kept.
        densities, alphas: see `handful.compress.compeft.choose`.

    Returns:
        The compressed changes as a file keeps them, what was chosen, and bytes of the tensors before and after.

    Raises:
        BadInput: they are compressed already.
    """
    described, state = file
    if CODE in state:
        raise BadInput("the model's changes are compressed already")
    tower = tunable(base).tower()
    apart, rest = _apart(state)
    even = balanced(delta_of(tower, described, rest), tower)

    def scored(vector: Tensor) -> float:
        return score(encoder_with(base, described, {**tensors(with_vector(even, tower, vector)), **apart}))

    chosen = choose(task_vector(even, tower), scored, densities, alphas)
    small = {**compressed(chosen.update, even), **apart}
    return (dict(described), small), chosen, _bytes(state), _bytes(small)


def _apart(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Tensors of the reading, and of the changes."""
    start = f"{READING}."
    return (
        {name: t for name, t in state.items() if name.startswith(start)},
        {name: t for name, t in state.items() if not name.startswith(start)},
    )


def _bytes(state: Mapping[str, Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in state.values())
