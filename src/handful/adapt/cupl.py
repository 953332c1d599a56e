"""CuPL: several sentences that describe each class, written by a language model, in place of its name.

Pratt, Covert, Liu, Farhadi, "What does a platypus look like? Generating customized prompts for zero-shot image
classification", 2022 (compared with in papers 035 and 070). With unit vectors y_cj of the sentences of class c:

    logits_c = s z t_c,  t_c = the unit mean of y_cj over j
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from handful.adapt.zero_shot import ZeroShot


@dataclass(eq=False, repr=False, kw_only=True)
class CuPL(ZeroShot):
    """Cosine to the mean of several descriptions of a class; examples, when given, are ignored.

    ``text`` holds the vectors of a class' sentences. With those of name templates among them it is CuPL+e.
    """

    key: ClassVar[str] = "cupl"
