"""Labels as words: which ones are only codes, and what the others say."""

from __future__ import annotations

import re

GENERIC = frozenset({"category", "cat", "class", "cls", "cluster", "code", "group", "id", "intent", "item", "label",
                     "lbl", "level", "no", "nr", "num", "number", "tag", "target", "topic", "type"})  # fmt: skip
"""Words that say nothing about a class when a number follows them, as in ``class_12``."""

_IDEOGRAPH = re.compile(r"[\u2e80-\ua4cf\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]")
_HASH = re.compile(r"(?=.*\d)[0-9a-fA-F]{6,}(-[0-9a-fA-F]{4,})*")
_LETTERS = re.compile(r"[^\W\d_]{2,}")
_CAMEL = re.compile(r"(?<=[a-z]{2})(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z]{2})|(?<=[0-9])(?=[A-Z][a-z])")


def is_code(label: str) -> bool:
    """Whether a label is a code (``c07``, ``12``, ``A-3``, ``class_4``, ``n01440764``), not words.

    A code has no word in it: no run of two letters, apart from words such as "class" beside a number, and no ideograph.
    """
    label = label.strip()
    if _IDEOGRAPH.search(label):
        return False
    if _HASH.fullmatch(label):
        return True
    numbered = any(c.isdigit() for c in label)
    words = (word.casefold() for word in _LETTERS.findall(readable(label)))
    return not any(word not in GENERIC or not numbered for word in words)


def readable(label: str) -> str:
    """The words of a label in snake, kebab or camel case: ``cancelOrder`` and ``cancel_order`` are "cancel order".

    Acronyms stay as they are (``HTTPError`` is "HTTP error"), and so do the case of the first word and any label that
    is written with blanks but without underscores.
    """
    spaced = label.replace("_", " ")
    if not re.search(r"\s", label.strip()):
        spaced = re.sub(r"(?<=[^\W\d]{2})-(?=[^\W\d]{2})", " ", spaced)
        spaced = " ".join(_split_camel(word) for word in spaced.split())
    return " ".join(spaced.split()) or label


def _split_camel(word: str) -> str:
    """``cancelOrder`` to "cancel order"; ``iPhone`` and ``McDonald`` stay, as one lower letter is no word."""
    first, *others = _CAMEL.sub(" ", word).split(" ")
    return " ".join([first, *(part.lower() if part[1:].islower() else part for part in others)])
