"""Texts with the words of a group exchanged for those of another: data that says the same of each.

    swap      every listed word becomes its partner; two texts, the changed one and the original; others are left out
    copies    the original, and for each listed word in it one copy a partner, with that word exchanged wherever it
              stands; texts without such a word stay
    random    every listed word becomes a partner drawn once a text and place in the row; two texts, as for swap

A word is what stands between spaces; a comma, full stop, colon, semicolon, exclamation or question mark at its end is
not looked at. Of several rows with one word, the last names its partners. Letters' case does not count, and a capital
letter at the beginning stays one.

188 PEFTDebias: Capturing debiasing information using PEFTs, 2023, section 3; the way of Zmigrod et al. 2019.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import numpy as np

from handful.errors import BadInput, nearest
from handful.tune.prompting import refuse_one

Mode = Literal["swap", "copies", "random"]
Rows = Sequence[Sequence[str]]
ENDS = ".,?!;:"


def _rows(text: str) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(row.split("/")) for row in text.split())


_AXES: dict[str, Rows] = {
    "gender": _rows(
        "actor/actress actors/actresses boy/girl boys/girls brother/sister brothers/sisters businessman/businesswoman "
        "businessmen/businesswomen chairman/chairwoman chairmen/chairwomen dad/mom dads/moms daddy/mommy father/mother "
        "fathers/mothers gentleman/lady gentlemen/ladies grandfather/grandmother grandson/granddaughter groom/bride "
        "he/she himself/herself him/her his/her husband/wife husbands/wives king/queen kings/queens male/female "
        "males/females man/woman men/women mr/mrs mr./mrs. nephew/niece nephews/nieces policeman/policewoman "
        "prince/princess princes/princesses sir/madam son/daughter sons/daughters spokesman/spokeswoman uncle/aunt "
        "uncles/aunts waiter/waitress"
    ),
    "race": _rows("black/white/asian african/european/asian africa/europe/asia africans/europeans/asians"),
    "religion": _rows(
        "jewish/christian/muslim jews/christians/muslims jew/christian/muslim judaism/christianity/islam "
        "rabbi/priest/imam synagogue/church/mosque torah/bible/quran"
    ),
}
_MORE: Rows = (("gay", "straight"), ("lesbian", "straight"), ("transgender", "straight"))
AXES: Mapping[str, Rows] = {**_AXES, "group": (*_AXES["religion"], *_AXES["race"], *_MORE)}
"""By axis the rows of words that stand for one another; our own lists, after the authors'."""


def counterfactual(
    texts: Sequence[str], axis: str | Rows = "gender", mode: Mode | None = None, *, ends: str = ENDS, seed: int = 0
) -> list[str]:
    """The texts to learn from; see `handful.tune.counterfactual`.

    Args:
        texts: to be changed.
        axis: one of `AXES`, or rows of words; two words or more each.
        mode: by default ``"swap"`` where every row has two words, else ``"copies"``.
        ends: signs at the end of a word that do not belong to it.
        seed: of what is drawn.

    Raises:
        BadInput: no such axis; a row of one word; an item that is no text; no text has a listed word.
    """
    rows = rows_of(axis)
    refuse_others(texts)
    if mode is None:
        mode = "swap" if all(len(row) == 2 for row in rows) else "copies"
    if mode not in get_args(Mode):
        raise BadInput(f"there is no mode {mode!r}{nearest(mode, get_args(Mode))}")
    if mode == "swap" and any(len(row) != 2 for row in rows):
        raise BadInput("words are swapped where a row has two of them; take mode 'copies' or 'random'")
    row_of = {word.lower(): [one.lower() for one in row] for row in rows for word in row}
    rng = np.random.default_rng(seed)
    out: list[str] = []
    hits = 0
    for text in texts:
        words = text.split()
        cut = [_bare(word, row_of, ends) for word in words]
        found = dict.fromkeys(bare for bare, _ in cut if bare in row_of)
        hits += bool(found)
        if mode == "copies":
            out.append(text)
            for word in found:
                partners = [one for one in row_of[word] if one != word]
                out += [" ".join(_put(words, cut, {word: partner})) for partner in partners]
        elif found:
            drawn: dict[int, float] = {}
            taken = {}
            for word in found:
                partners = [one for one in row_of[word] if one != word]
                place = row_of[word].index(word)
                share = drawn.setdefault(place, float(rng.random()) if mode == "random" else 0.0)
                taken[word] = partners[int(share * len(partners))]
            out += [" ".join(_put(words, cut, taken)), text]
    if not hits:
        raise BadInput(f"none of the {len(texts)} texts has a word of the axis: there is nothing to learn from")
    return out


def refuse_others(texts: Sequence[str]) -> None:
    """Raise `BadInput` for one text in place of a list, and for an item that is none."""
    refuse_one(texts)
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise BadInput(f"item {number} is {str(text)[:60]!r}, a {type(text).__name__}, not a text")


def rows_of(axis: str | Rows) -> Rows:
    """The rows of an axis. Raises `BadInput`, see `counterfactual`."""
    if isinstance(axis, str):
        if axis not in AXES:
            raise BadInput(f"there is no list of words for the axis {axis!r}{nearest(axis, AXES)}; give rows of words")
        return AXES[axis]
    for row in axis:
        if isinstance(row, str) or len(set(row)) < 2 or not all(isinstance(word, str) for word in row):
            raise BadInput(f"a row has two different words or more that stand for one another, not {row!r}")
    if not axis:
        raise BadInput("no rows of words are given")
    return axis


def _bare(word: str, known: Mapping[str, object], ends: str) -> tuple[str, str]:
    """A word in small letters without the sign at its end, and that sign."""
    low = word.lower()
    if low not in known and low[-1] in ends:
        return low[:-1], word[-1]
    return low, ""


def _put(words: Sequence[str], cut: Sequence[tuple[str, str]], taken: Mapping[str, str]) -> list[str]:
    out = []
    for word, (bare, end) in zip(words, cut, strict=True):
        if bare not in taken:
            out.append(word)
            continue
        new = taken[bare] + end
        out.append(new[:1].upper() + new[1:] if word[:1].isupper() else new)
    return out
