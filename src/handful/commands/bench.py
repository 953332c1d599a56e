"""`handful bench`: heads compared on the same episodes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import handful
from handful.adapt import head_class
from handful.adapt.parameters import several
from handful.commands.sources import Columns, class_sentences, labelled, read_source
from handful.encode import default_encoder
from handful.encode import encoder as make_encoder
from handful.errors import BadInput, nearest
from handful.evaluate.comparison import Row, judge
from handful.evaluate.indices import Count, Episodes
from handful.evaluate.sampling import draw
from handful.evaluate.tables import BenchResult as BenchResult
from handful.evaluate.tables import table_format
from handful.evaluate.tuning import Tuned, tune
from handful.protocols import Encoder, Progress
from handful.read import Dataset
from handful.ship.model import Encoded, class_text_vectors, encode_dataset

SHOTS: tuple[Count, ...] = (1, 5)
EPISODES = 600
TUNING_EPISODES = 200
"""Validation episodes that each setting of a head is judged on, at most."""
if TYPE_CHECKING:
    from handful.evaluate.suite_results import SuiteResult


def bench(
    sources: Any,
    *,
    heads: Sequence[str],
    ways: Count = 5,
    shots: Sequence[Count] | None = None,
    queries: int = 15,
    episodes: int | None = None,
    base: Any = None,
    imbalance: str | float | None = None,
    set_: Mapping[str, Any] | None = None,
    tune_on: Any = None,
    budget: int = 20,
    save_episodes: str | Path | None = None,
    episodes_from: str | Path | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    text: str | Sequence[str] | None = None,
    image: str | None = None,
    label: str | None = None,
    class_names: str | Path | Mapping[str, str | Sequence[str]] | None = None,
    encoder: str | None = None,
    merge_labels: bool = False,
    skip_bad: bool = False,
    cache: bool = True,
    suite: str | None = None,
    progress: Progress | None = None,
) -> BenchResult | SuiteResult:
    """Judge heads on many small tasks drawn from labelled data, the same tasks for each.

    With several ``shots``, classes and queries stay the same and the support grows, so that numbers of shots are paired
    too.

    Args:
        sources: labelled data: what `handful.read.read` takes, a `Dataset`, or ``{label: [items]}``.
        heads: keys of heads; the others are compared with the first.
        ways: classes an episode, or ``"any"``: 5 to 50.
        shots: support items a class, each number in turn, 1 and 5 by default; ``["any"]`` for unbalanced support sets.
        queries: query items a class.
        episodes: how many, 600 by default.
        base: a source of base classes, for heads that learn something from them.
        imbalance: ``"dirichlet:A"`` (or A): class proportions of the queries drawn with concentration A.
        set_: parameters of heads: ``{"gda.alpha": 0.1}``; texts are read as JSON where they are JSON.
        tune_on: a source of validation classes, none of which is tested: every head gets ``budget`` settings of its
            `ranges`, drawn at random (its defaults among them), on the same episodes of these, and is tested with the
            best for each number of shots. Heads without ranges stay as they are, and so does what ``set_`` gives.
        budget: how many settings a head, on up to 200 episodes each.
        save_episodes: where to write the episodes that were drawn.
        episodes_from: episodes written earlier, from the same data; they bring their own ways, queries and number.
        seed: of the draw, and of heads that draw.
        out: where to write the result, ``.csv``, ``.json`` or ``.tex``.
        text, image, label: columns of a table; guessed from their names when not given.
        class_names: describes each label in words; by default the labels themselves, unless they are codes.
        encoder: name of the encoder; by default the embedded one for the modality.
        merge_labels: treat labels that differ only in case or blanks as one.
        skip_bad: leave out items that cannot be read.
        cache: use the feature cache.
        suite: a published protocol instead (`handful.evaluate.suites.SUITES`), with ways, shots, queries and seeds of
            its own; each source is then a data set, ``encoder`` may name several with commas, and ``out`` is a
            ``.json`` file from which a run that was stopped goes on. Shots and episodes replace its own.

    Raises:
        BadInput: one line that says what is wrong: a head or parameter there is not, more ways than classes, a class
            with too few items.
    """
    check_heads(heads)
    if budget < 1:
        raise BadInput(f"--budget must be at least 1, not {budget}")
    if suite is not None:
        from handful.commands.suites import run_suite

        own = {"ways": ways != 5, "queries": queries != 15, "imbalance": imbalance is not None}
        own |= {"save-episodes": save_episodes is not None, "episodes-from": episodes_from is not None}
        own |= {"tune-on": tune_on is not None}
        if given_too := next((name for name, is_given in own.items() if is_given), None):
            raise BadInput(f"--suite {suite} has a protocol of its own: leave out --{given_too}")
        return run_suite(
            suite,
            sources,
            heads,
            head_parameters(heads, set_ or {}),
            shots=None if shots is None else _check_shots(shots),
            episodes=episodes,
            base=base,
            seed=seed,
            out=out,
            columns=Columns(text, image, label),
            class_names=class_names,
            encoder=encoder,
            merge_labels=merge_labels,
            skip_bad=skip_bad,
            cache=cache,
            progress=progress,
        )
    if out is not None:
        table_format(out)
    parameters = head_parameters(heads, set_ or {})
    concentration = parse_imbalance(imbalance)
    shots = _check_shots(SHOTS if shots is None else shots)

    columns = Columns(text, image, label)
    data = labelled(read_source(sources, None, columns, merge_labels=merge_labels, skip_bad=skip_bad))
    others = None if base is None else read_source(base, None, columns, skip_bad=skip_bad)
    tower = tower_for(data, encoder)

    def encode(part: Dataset) -> Encoded:
        return encode_dataset(part, tower, views=views_of(heads), cache=cache, skip_bad=skip_bad, progress=progress)

    encoded = encode(data)
    background = None if others is None else background_of(others, encode(others))
    data = data.take(encoded.kept)
    labels = np.asarray(data.labels)
    if episodes_from is not None:
        drawn = Episodes.load(episodes_from, labels)
    else:
        most: Count = "any" if "any" in shots else max(int(k) for k in shots)
        drawn = draw(
            labels,
            ways=ways,
            shots=most,
            queries=queries,
            episodes=EPISODES if episodes is None else episodes,
            seed=seed,
            imbalance=concentration,
        )
    if save_episodes is not None:
        drawn.save(save_episodes)
    vectors = class_text_of(tower, class_names, data)
    given: dict[str, Any] = {"text": vectors, "random_state": seed}
    if tower is not None:
        given["logit_scale"] = tower.logit_scale
    tuned: list[Tuned] = []
    tuning = None
    if tune_on is not None:
        seen = labelled(read_source(tune_on, None, columns, merge_labels=merge_labels, skip_bad=skip_bad))
        _refuse_shared(seen, data)
        part = encode(seen)
        seen = seen.take(part.kept)
        some_ways, some_queries = (ways, queries) if episodes_from is None else (drawn.ways, drawn.queries)
        validation = _validation_episodes(
            seen, some_ways, shots, some_queries, min(len(drawn), TUNING_EPISODES), seed, concentration
        )
        known = {**given, "text": class_text_of(tower, class_names, seen)}
        names = np.asarray(seen.labels)
        tuned = [
            tune(
                key, known, parameters[key], part.features, names, validation, k,
                budget=budget, base=background, seed=seed,
            )
            for key in heads
            for k in shots
        ]  # fmt: skip
        tuning = {
            "sources": list(seen.provenance.sources),
            "classes": len(seen.classes),
            "episodes": len(validation),
            "budget": budget,
            "chosen": [each.as_dict() for each in tuned],
        }
    chosen = {(each.head, each.shots): each.parameters for each in tuned}
    rows: list[Row] = []
    for some in [shots] if not tuned else [[k] for k in shots]:
        settings = {key: {**parameters[key], **chosen.get((key, some[0]), {})} for key in heads}
        made = {key: head_class(key)(**{**given, **settings[key]}) for key in heads}
        found = judge(made, encoded.features, labels, drawn, some, base=background, seed=seed, progress=progress)
        rows += [replace(row, parameters=settings[row.head]) for row in found]
    setting = {
        "handful": handful.__version__,
        "sources": list(data.provenance.sources),
        "encoder": None if tower is None else tower.name,
        "n": len(data),
        "classes": len(data.classes),
        "ways": ways if episodes_from is None else drawn.ways,
        "queries": queries if episodes_from is None else drawn.queries,
        "episodes": len(drawn),
        "imbalance": concentration,
        "seed": seed,
        "episodes_from": None if episodes_from is None else str(episodes_from),
        "tuning": tuning,
    }
    result = BenchResult(tuple(rows), setting)
    if out is not None:
        result.save(out)
    return result


def _refuse_shared(validation: Dataset, test: Dataset) -> None:
    shared = sorted(set(validation.classes) & set(test.classes))
    if shared:
        more = f" and {len(shared) - 1} more" if len(shared) > 1 else ""
        raise BadInput(
            f"--tune-on: class {shared[0]!r}{more} is tested as well; parameters are chosen on classes of their own"
        )


def _validation_episodes(
    data: Dataset,
    ways: Count,
    shots: Sequence[Count],
    queries: int,
    episodes: int,
    seed: int,
    imbalance: float | None,
) -> Episodes:
    """Episodes like those that are tested, of other classes. Raises `BadInput` where these hold too little."""
    most: Count = "any" if "any" in shots else max(int(k) for k in shots)
    try:
        return draw(
            np.asarray(data.labels), ways=ways, shots=most, queries=queries, episodes=episodes, seed=seed,
            imbalance=imbalance,
        )  # fmt: skip
    except BadInput as error:
        raise BadInput(f"--tune-on: {error}") from error


def head_parameters(heads: Sequence[str], given: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Parameters of each head from ``{"gda.alpha": "0.1"}``.

    Raises:
        BadInput: a head that is not compared, or a parameter it does not have.
    """
    parameters: dict[str, dict[str, Any]] = {key: {} for key in heads}
    for name, value in given.items():
        key, dot, parameter = name.rpartition(".")
        if not dot or key not in parameters:
            raise BadInput(f"--set {name}: {key or name!r} is none of the heads{nearest(key or name, heads)}")
        names = head_class(key)._get_param_names()
        if parameter not in names:
            raise BadInput(f"--set {name}: head {key!r} has no parameter {parameter!r}{nearest(parameter, names)}")
        parameters[key][parameter] = _value(value)
    return parameters


def _value(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def parse_imbalance(imbalance: str | float | None) -> float | None:
    """A of ``"dirichlet:A"``. Raises `BadInput` for anything else."""
    if imbalance is None or not isinstance(imbalance, str):
        return imbalance
    kind, _, number = imbalance.partition(":")
    try:
        if kind == "dirichlet":
            return float(number)
    except ValueError:
        pass
    raise BadInput(f"imbalance is 'dirichlet:A' with a number A, such as dirichlet:2, not {imbalance!r}")


def check_heads(heads: Sequence[str]) -> None:
    """Raise `BadInput` for no head, one there is not, or one twice."""
    if isinstance(heads, str) or not heads:
        raise BadInput("name at least one head to judge, as a list")
    for key in heads:
        head_class(key)
    twice = next((key for i, key in enumerate(heads) if key in heads[:i]), None)
    if twice is not None:
        raise BadInput(f"head {twice!r} is named twice")


def _check_shots(shots: Sequence[Count]) -> list[Count]:
    found = list(dict.fromkeys(several("shots", shots, "a list of numbers, or of 'any' alone")))
    if not found or ("any" in found and len(found) > 1):
        raise BadInput("shots are one or more numbers, or 'any' alone")
    for k in found:
        if k != "any" and (not isinstance(k, Integral) or isinstance(k, bool) or k < 1):
            raise BadInput(f"shots must be at least 1, not {k}")
    return found


def tower_for(data: Dataset, name: str | None) -> Encoder | None:
    """The encoder of that name, or the one for such items; ``None`` for features.

    Raises:
        BadInput: features and a name.
    """
    if data.modality == "features":
        if name is not None:
            raise BadInput(f"the source holds features; --encoder {name} has nothing to encode")
        return None
    return default_encoder(data.modality) if name is None else make_encoder(name)


def views_of(heads: Sequence[str]) -> list[str]:
    """What some of the heads need beside features."""
    return list(dict.fromkeys(view for key in heads for view in head_class(key).needs.views))


def background_of(data: Dataset, encoded: Encoded) -> Any:
    """Features of base classes, with labels where all have one."""
    labels = data.take(encoded.kept).labels
    return encoded.features.x if None in labels else (encoded.features.x, np.asarray(labels))


def class_text_of(
    tower: Encoder | None, class_names: str | Path | Mapping[str, str | Sequence[str]] | None, data: Dataset
) -> dict[str, np.ndarray] | None:
    """A vector of each class of ``data``; ``None`` where nothing describes them, or the encoder reads no text."""
    sentences = class_sentences(class_names, data.classes)
    if tower is None or tower.aligned is None or not sentences:
        return None
    return class_text_vectors(tower, sentences)
