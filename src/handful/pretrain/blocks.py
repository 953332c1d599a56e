"""Tasks made of plain text, whose answers are in the text itself (109; builders of `self_supervised`).

    nsg   all sentences but the last                          ->  the last
    mwp   1 to 20 words replaced by signs such as ___ or ###  ->  those words, in order
    lpp   all up to the last function word                    ->  from there to the end; or: is this phrase the end?
    clf   is the text as it was written, shuffled, of several documents, or gone on with by another?

`filled` and `ended` undo `mwp` and `lpp`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SIGNS = ("___", "<<>>", "@@@", "(())", "$$$", "%%%", "###", "***", "+++")
MOST_MASKED = 20
_WORDS = (
    "a about above across after against all although among an and any are around as at be because been before behind "
    "below between both but by can could did do does down during each either every few for from had has have he her "
    "hers him his how i if in into is it its may me might mine must my near neither no nor not of off on once one or "
    "our ours out over past shall she should since so some such than that the their theirs them then there these they "
    "this those though through to toward under unless until up upon us was we were what when where whether which "
    "while who whom whose why will with within without would you your yours"
)
FUNCTION_WORDS = frozenset(_WORDS.split())
CORRUPT = ("shuffled", "mixed", "continued")
NAMES = {
    2: (("True", "False"), ("Yes", "No"), ("Right", "Wrong"), ("A", "B"), ("1", "2")),
    3: (("A", "B", "C"), ("1", "2", "3"), ("X", "Y", "Z"), ("Yes", "No", "Maybe")),
}
"""What classes are called, by how many they are; which is which is drawn for each instance."""
_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=[\"'(\[]*[A-Z0-9])")


@dataclass(frozen=True)
class Block:
    """Some sentences that follow on each other, and the number of their document."""

    sentences: tuple[str, ...]
    document: int

    @property
    def text(self) -> str:
        """As it was written, short of blanks."""
        return " ".join(self.sentences)


def sentences(text: str) -> list[str]:
    """Cut behind full stops, question and exclamation marks that a capital or a figure follows."""
    out, at = [], 0
    flat = " ".join(text.split())
    for end in _END.finditer(flat):
        out.append(flat[at : end.end()].strip())
        at = end.end()
    return [one for one in [*out, flat[at:].strip()] if one]


def blocks_of(documents: Sequence[str], least: int) -> tuple[list[Block], int]:
    """Blocks of ``least`` sentences, the rest of a document with its last one; and how many documents are too short."""
    out, short = [], 0
    for number, document in enumerate(documents):
        found = sentences(document)
        many = len(found) // least
        short += not many
        for at in range(many):
            end = (at + 1) * least if at + 1 < many else len(found)
            out.append(Block(tuple(found[at * least : end]), number))
    return out, short


def nsg(block: Block) -> tuple[str, str]:
    """Next sentence generation."""
    return " ".join(block.sentences[:-1]), block.sentences[-1]


def mwp(block: Block, rng: np.random.Generator) -> tuple[str, str] | None:
    """Masked word prediction; ``None`` for a text that has one of the signs in it."""
    words = block.text.split(" ")
    if set(words) & set(SIGNS):
        return None
    many = int(rng.integers(1, min(MOST_MASKED, len(words)) + 1))
    at = sorted(rng.choice(len(words), many, replace=False).tolist())
    answer = " ".join(words[i] for i in at)
    for i in at:
        words[i] = SIGNS[int(rng.integers(len(SIGNS)))]
    return " ".join(words), answer


def filled(masked: str, answer: str) -> str:
    """The text that `mwp` made ``masked`` of."""
    words = iter(answer.split(" "))
    return " ".join(next(words) if word in SIGNS else word for word in masked.split(" "))


def lpp(block: Block) -> tuple[str, str]:
    """The passage and its last phrase; without a function word behind the first, of the last two words."""
    words = block.text.split(" ")
    found = [i for i, word in enumerate(words) if i and word.strip(".,;:!?\"'()[]").lower() in FUNCTION_WORDS]
    at = found[-1] if found else max(1, len(words) - 2)
    return " ".join(words[:at]), " ".join(words[at:])


def ended(passage: str, phrase: str) -> str:
    """The text that `lpp` cut in two."""
    return f"{passage} {phrase}"


def corrupted(block: Block, kind: str, others: Sequence[Block], rng: np.random.Generator) -> str:
    """The block as ``"original"``, ``"shuffled"``, ``"mixed"`` (half of its sentences are those of others) or
    ``"continued"`` (its second half is another's).

    Args:
        others: blocks of other documents.
    """
    lines = list(block.sentences)
    if kind == "shuffled":
        order = np.arange(len(lines))
        while len(set(lines)) > 1 and [lines[i] for i in order] == lines:
            order = rng.permutation(len(lines))
        lines = [lines[i] for i in order]
    elif kind == "mixed":
        for at in rng.choice(len(lines), len(lines) // 2, replace=False):
            other = others[int(rng.integers(len(others)))]
            lines[at] = other.sentences[int(rng.integers(len(other.sentences)))]
    elif kind == "continued":
        half = len(lines) // 2
        other = others[int(rng.integers(len(others)))]
        lines = lines[: len(lines) - half] + list(other.sentences[-half:])
    return " ".join(lines)
