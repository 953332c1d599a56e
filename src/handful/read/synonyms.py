"""What to call a class: by the name under which a corpus has it most often.

Paper 040: Parashar, Lin, Liu, Dong, Li, Ramanan, Caverlee, Kong, "The Neglected Tails of Vision-Language Models", 2024:
REAL-Prompt. A model knows the names best that were frequent in what it learnt from:

    name(c) = the synonym of c in most captions
              but that of c itself where it is in as many, or where that synonym is only a part of its words
              ("Honda Accord" is another class than "Honda Accord 2012")
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from handful.errors import BadInput
from handful.read.words import readable


def most_frequent_name(name: str, counts: Mapping[str, int], *, parts: bool = False) -> str:
    """The synonym to call a class by, as it is written in ``counts``.

    Args:
        name: of the class. Names that differ in case, quotes, hyphens, underscores and blanks are the same.
        counts: how many captions have each synonym; of several that are equally frequent the first. A name that is not
            among them is rarer than all.
        parts: take a synonym too whose words are only a part of the name's.

    Raises:
        BadInput: no counts, a blank synonym, or a count that is no whole number from 0.
    """
    if not counts:
        raise BadInput(f"class {name!r} has no synonyms with their counts")
    for synonym, n in counts.items():
        if not words_of(synonym):
            raise BadInput(f"class {name!r}: synonym {synonym!r} has no word in it")
        if not isinstance(n, int) or isinstance(n, bool) or n < 0:
            raise BadInput(f"class {name!r}: the count of {synonym!r} must be a whole number from 0, not {n!r}")
    same = [synonym for synonym in counts if words_of(synonym) == words_of(name)]
    own = name if name in counts else max(same, key=counts.__getitem__, default=None)
    best = max(counts, key=counts.__getitem__)
    if own is not None and counts[own] >= counts[best]:
        return own
    part = set(words_of(best)) < set(words_of(name))
    return (readable(name) if own is None else own) if part and not parts else best


def words_of(name: str) -> tuple[str, ...]:
    """The words of a name in lower case; hyphens and underscores are blanks, quotes and other signs nothing."""
    return tuple(re.sub(r"[^\w\s]", "", re.sub(r"[-_]", " ", name.lower())).split())
