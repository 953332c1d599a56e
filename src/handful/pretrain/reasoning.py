"""Tasks that are answered by reasoning first (121, Flan: chain of thought), and what an answer is read from.

question, a cue such as "step by step"     ->  rationale, a phrase such as "So the answer is", answer
inverted                                   the question is asked for, given rationale and answer
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence

from handful.errors import BadInput
from handful.pretrain.mixture import Task

FORWARD = (
    ("{question}\nLet's think step by step.", "{rationale} So the answer is {answer}"),
    ("Question: {question}\nAnswer with your reasoning first.", "{rationale}\nThe answer is {answer}"),
    ("Q: {question}\nStep-by-step reasoning:", "{rationale} Therefore, the final answer is {answer}"),
    ("Reason before you answer.\n{question}", "{rationale} The answer: {answer}"),
    ("{question}\nThink it through, then answer.", "{rationale}\nFinal answer: {answer}"),
    ("Solve this and show how: {question}", "{rationale}\nThus, the answer is {answer}"),
    ("{question}\nExplain your thoughts.\nA:", "{rationale} I think the answer is {answer}"),
    ("Here is a question. {question}\nWhat leads to its answer?", "{rationale} Hence the answer is {answer}"),
    ("{question} Give the steps.", "{rationale}\nAnswer: {answer}"),
    ("Let's reason. {question}", "{rationale} So, the answer is {answer}"),
)
INVERTED = (
    ("Reasoning: {rationale}\nAnswer: {answer}\nWhat was the question?", "{question}"),
    ("Write a question with the answer {answer}, reached like this: {rationale}", "{question}"),
    ("The answer is {answer}, because: {rationale}\nQuestion:", "{question}"),
    ("{rationale} So the answer is {answer}. Which question was asked?", "{question}"),
)
_CUE = re.compile(r"(?i)\banswer(?: is\b *:?|:)\s*")


def reasoning_tasks(name: str, rows: Sequence[tuple[str, str, str]]) -> tuple[Task, Task]:
    """The task and its inversion, of (question, answer, rationale).

    Raises:
        BadInput: a part is empty or no text; an answer has in it the phrase that answers are read behind.
    """
    cases = []
    for number, row in enumerate(rows):
        if len(row) != 3 or not all(isinstance(part, str) for part in row):
            raise BadInput(f"row {number} of {name!r} must be three texts, a question, an answer and a rationale")
        question, answer, rationale = (part.strip() for part in row)
        if not (question and answer and rationale):
            raise BadInput(f"row {number} of {name!r} lacks a question, an answer or a rationale")
        if _CUE.search(f" {answer} ") or "\n" in answer:
            raise BadInput(f"row {number} of {name!r}: the answer {answer[:60]!r} cannot be told from its rationale")
        cases.append({"question": question, "answer": answer, "rationale": rationale})
    return (
        Task(name, cases, FORWARD, collection="cot"),
        Task(f"{name}_inverted", cases, INVERTED, collection="cot-ii"),
    )


def answer_of(said: str) -> str | None:
    """What stands behind the last "answer is" or "answer:", up to the end of its line; ``None`` without either."""
    found = list(_CUE.finditer(said))
    return said[found[-1].end() :].split("\n")[0].strip() if found else None


def majority(answers: Sequence[str | None], short: Callable[[str], str] = str) -> str | None:
    """Self-consistency: the answer most samples agree on, of equally many the first; ``None`` where none answers.

    Args:
        answers: of the samples.
        short: what two answers have in common that count as one.
    """
    given = [answer for answer in answers if answer is not None]
    if not given:
        return None
    best = Counter(map(short, given)).most_common(1)[0][0]
    return next(answer for answer in given if short(answer) == best)
