"""Descriptions of classes by a language model, in two stages: what tells the classes apart, then what each is like.

Paper 033: Maniparambil, Vorster, Molloy, Murphy, McGuinness, O'Connor, "Enhancing CLIP with GPT-4: Harnessing Visual
Descriptions as Prompts", 2023.

    attributes  asked for once, with all names: "size, colour of the wings, shape of the beak"
    sentences   one of every class about every attribute: "Green heron has shape of the beak that is long and pointed"

    describe_classes(names, partial(say, language_model("hf:FOLDER"), most=40), "birds")

makes what ``class_names`` of `handful.fit` takes, and ``--class-names`` once it is written as JSON.
"""

from __future__ import annotations

from collections.abc import Sequence

from handful.errors import BadInput
from handful.generate.asking import Ask, answers, listed
from handful.read import readable

ATTRIBUTES = "Which visual attributes tell {things} such as {names} apart in a photo? List them, separated by commas:"
SENTENCE = "Say in a few words what the {attribute} of {name}, one of some {things}, looks like in a photo. {stem}"
STEM = "{name} has {attribute} that is"


def describe_classes(
    names: Sequence[str], ask: Ask, things: str = "things", *, attributes: Sequence[str] | None = None, most: int = 12
) -> dict[str, list[str]]:
    """Sentences by class name, as many for every class as there are attributes.

    Args:
        names: of C different classes, read as labels are.
        ask: the language model. What it says to a prompt about one class counts up to the end of the first line.
        things: what the classes are, in the plural: ``"birds"``.
        attributes: M of them; ``None`` asks the model.
        most: attributes that are taken at most, where the model is asked.

    Raises:
        BadInput: fewer than two names, one twice or blank; no attribute; another number of answers than prompts; no
            sentence about an attribute of a class.
    """
    words = [" ".join(readable(name).split()) for name in names]
    alike = {word.lower() for word in words}
    if len(names) < 2 or "" in alike or len(alike) < len(names):
        raise BadInput(f"names must be of two or more different classes, none blank, not {list(names)!r}")
    if attributes is None:
        (said,) = answers(ask, [ATTRIBUTES.format(things=things, names=", ".join(words))])
        attributes = listed(said)[:most]
    if not attributes:
        raise BadInput("the language model named no attribute: give attributes=[...]")
    pairs = [(word, attribute) for word in words for attribute in attributes]
    stems = [STEM.format(name=word[0].upper() + word[1:], attribute=attribute) for word, attribute in pairs]
    prompts = [
        SENTENCE.format(attribute=attribute, name=word, things=things, stem=stem)
        for (word, attribute), stem in zip(pairs, stems, strict=True)
    ]
    sentences = []
    for (word, attribute), stem, said in zip(pairs, stems, answers(ask, prompts), strict=True):
        line = next((line.strip() for line in said.splitlines() if line.strip()), "")
        rest = line[len(stem) :].strip() if line.lower().startswith(stem.lower()) else line
        if not rest:
            raise BadInput(f"the language model said nothing of the {attribute} of {word!r}: leave that attribute out")
        sentences.append(f"{stem} {rest}")
    m = len(attributes)
    return {name: sentences[i * m : (i + 1) * m] for i, name in enumerate(names)}
