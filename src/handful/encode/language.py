"""Whether a text is English, told by the pieces an English tokenizer cuts it into.

An encoder that learned from English gives every text a vector, whatever its language; most other languages come out as
noise. WordPiece's vocabulary gives them away: English words are mostly whole pieces and many of them function words;
words of other languages fall to pieces, or carry letters that English does not have.

Two tests. Another script: more than half of the letters are not Latin. Else the words as independent evidence: each
kind of word w counts with (about 0.6 times, since neighbours are not independent) its log-likelihood ratio
log p(w | another language) / p(w | English), and a text whose sum is above 3 is not English. The ratios are from
English data sets (Banking77, AG News, CR, MR, SST, Subj, TREC) and from 80 sentences in 16 languages of Latin script.
A few words are too little to tell, and count as English; Tagalog mostly escapes, whose words look like English pieces.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np

FUNCTION, WHOLE, TWO, MORE, MARKED = -3.0, -0.5, 1.2, 2.0, 3.0
"""What a word counts: an English function word; one piece; two; more; with letters beyond a to z."""
ENOUGH = 3.0
MOST_WORDS = 200
"""That are looked at of a text: as many as an encoder reads of it, and more."""
# Without those that are common words of other languages too: a, in, on, is, i, we, for, by, her, will, was, of, as, …
_COMMON = """
    the and to with that this it its you your my they them their there she his him what which who when where why how
    not don doesn didn isn can could would should have are were been being if or but from than about into after before
    because does did out up some more most other only just like get got while very too our us
"""
FUNCTION_WORDS = frozenset(_COMMON.split())
_WORD = re.compile(r"[^\W\d_]+")


def foreign(texts: Sequence[str], pieces: Callable[[Sequence[str]], Sequence[int]]) -> np.ndarray:
    """Which of the texts are in another language than English, bool [n].

    Args:
        texts: n of them.
        pieces: into how many pieces the encoder's tokenizer cuts each of some words.
    """
    words = [[word.lower() for word in _WORD.findall(text)[:MOST_WORDS]] for text in texts]
    known = sorted({word for some in words for word in some})
    evidence = {word: _evidence(word, count) for word, count in zip(known, pieces(known), strict=True)}
    sums = np.array([sum(evidence[word] for word in some) for some in words])
    others: np.ndarray = (sums > ENOUGH) | np.fromiter(map(_another_script, texts), dtype=bool, count=len(texts))
    return others


def _evidence(word: str, pieces: int) -> float:
    if word in FUNCTION_WORDS:
        return FUNCTION
    if not word.isascii():
        return MARKED
    if len(word) == 1:
        return 0.0
    return (WHOLE, TWO, MORE)[min(pieces, 3) - 1]


def _another_script(text: str) -> bool:
    if text.isascii():
        return False
    letters = [char for char in text if char.isalpha()]
    others = sum(not _latin(char) for char in letters)
    return others >= 2 and 2 * others > len(letters)


def _latin(char: str) -> bool:
    return char < "\u0250" or "\u1e00" <= char < "\u1f00" or "\uff21" <= char <= "\uff5a"
