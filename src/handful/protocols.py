"""The small contracts through which rooms meet."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

Progress = Callable[[int, int], None]
"""Called with (items done, items in all) while work goes on."""


Ranges = Mapping[str, tuple[Any, ...]]
"""Parameters and where to look for them: two floats are the ends of an interval, drawn from evenly in the logarithm;
anything else is the values to try."""


@runtime_checkable
class Encoder(Protocol):
    """Items in, features out.

    Attributes:
        name: the public name, as in ``--encoder``.
        modality: what it reads.
        dim: width d of the ``pooled`` output.
        outputs: which arrays it can give: ``pooled`` [n, d] always; ``aligned`` [n, dt], the item in the space of the
            text tower, for two-tower encoders; ``local`` [n, l, d]; ``pre`` [n, p].
        options: how it looks at items where that is not its usual way, as `handful.encode.encoder` was asked:
            ``long``, ``crop``, ``tiles``. JSON-able; empty by default.
        identity: what makes the features what they are short of the arithmetic: weights, preprocessing, options. A
            model asks for this.
        revision: the commit of the hub that its files are, or ``None``.
        fingerprint: changes exactly when a bit of the features would: identity and arithmetic. The cache asks for this.
        aligned: which of ``outputs`` lives in the space of `class_text` (``"pooled"`` for a text encoder), or ``None``.
        templates: sentences that class names are put into, at ``{}``, before `class_text` reads them.
        logit_scale: what multiplies the cosine of ``aligned`` and class text in zero-shot logits.
    """

    name: str
    modality: Literal["text", "image"]
    dim: int
    outputs: frozenset[str]
    options: Mapping[str, Any]
    identity: str
    revision: str | None
    fingerprint: str
    aligned: str | None
    logit_scale: float
    templates: Sequence[str]

    def encode(
        self,
        items: Any,
        outputs: Sequence[str] = ("pooled",),
        views: int = 1,
        *,
        cache: bool = True,
        bad: Literal["raise", "nan"] = "raise",
        progress: Progress | None = None,
    ) -> Any:
        """Features as float32: one array for one output, else a dict by output; [n, views, …] for ``views > 1``.

        Raises `BadItem` for an item that cannot be read; with ``bad="nan"`` its rows are NaN instead.
        """
        ...

    def class_text(self, sentences: Sequence[str], *, cache: bool = True) -> np.ndarray:
        """Unit vectors [m, dt] of sentences that describe classes, in the space of the output named by ``aligned``."""
        ...

    def parts(self) -> dict[str, bytes]:
        """All the files it needs, weights as safetensors, by name: `handful.encode.encoder_from_parts` rebuilds it."""
        ...


@dataclass(frozen=True)
class Needs:
    """What a method needs and what it assumes: drives errors, ``auto``, advice, the docs tables and the contract tests.

    ``text``, ``background``, ``unlabelled`` and ``views`` are side information without which the method cannot run;
    ``simplex`` and ``positive`` say what features it takes; ``transductive`` methods look at all queries together;
    ``assumes_balanced`` ones expect every class equally often among them.
    """

    text: bool = False
    background: bool = False
    unlabelled: bool = False
    views: tuple[str, ...] = ()
    min_shots: int = 1
    simplex: bool = False
    positive: bool = False
    gradient: bool = False
    language_model: bool = False
    transductive: bool = False
    assumes_balanced: bool = False
    multi_label: bool = False
    stochastic: bool = False
    batched: Literal["yes", "loop"] = "yes"

    def as_dict(self) -> Mapping[str, Any]:
        """Field by field, for tables."""
        return dict(self.__dict__)
