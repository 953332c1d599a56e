"""Does training text hold what is tested? Runs of 13 words that both have, and tasks of one name.

What many tested texts have in common is how they are asked, not what: such runs do not count.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from handful.errors import BadInput
from handful.pretrain.examples import Example

RUN = 13
"""Words of a run; texts with fewer are compared whole."""
COMMON = 0.1
"""Runs in a larger share of the tested texts, and in two at least, are how they are asked."""


def runs(text: str, words: int = RUN) -> set[tuple[str, ...]]:
    """All runs of ``words`` words, without case and signs; a shorter text is one run."""
    flat = _words(text)
    if not flat:
        return set()
    return {tuple(flat[at : at + words]) for at in range(max(1, len(flat) - words + 1))}


def overlapping(tested: Sequence[str], learnt: Iterable[str], words: int = RUN) -> list[int]:
    """Numbers of the tested texts that are learnt as a whole, or share a run that is not `COMMON` with what is."""
    wanted = [runs(text, words) for text in tested]
    counts = Counter(run for some in wanted for run in some)
    own = {run for run, many in counts.items() if many <= max(1, COMMON * len(tested))}
    seen: set[tuple[str, ...]] = set()
    whole: set[tuple[str, ...]] = set()
    for text in learnt:
        seen |= runs(text, words) & own
        whole.add(_words(text))
    return [number for number, some in enumerate(wanted) if some & seen or (some and _words(tested[number]) in whole)]


def _words(text: str) -> tuple[str, ...]:
    return tuple("".join(c if c.isalnum() else " " for c in text.casefold()).split())


def refuse_leaks(learnt: Sequence[Example], tested: Sequence[Example], words: int = RUN) -> None:
    """Raise `BadInput` where a tested task is learnt, or a tested input shares a run of words with what is learnt.

    What a tested example shows is not looked at, nor are its options: only its input as a whole.
    """
    names = {one.task for one in learnt if one.task} & {one.task for one in tested}
    if names:
        raise BadInput(f"task {min(names)!r} is learnt and tested; take it out of one of them")
    texts = (text for one in learnt for text in (one.inputs, f"{one.inputs}\n{one.targets}"))
    found = overlapping([one.inputs for one in tested], texts, words)
    if found:
        raise BadInput(
            f"{len(found)} of {len(tested)} tested examples share {words} words in a row with what is learnt, first "
            f"{tested[found[0]].inputs[:60]!r}; leave them out"
        )
