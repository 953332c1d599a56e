"""`Model`: an encoder by name, a fitted head, and the card that says where both come from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from handful.errors import BadInput
from handful.protocols import Encoder, Progress
from handful.read import Dataset, from_arrays
from handful.ship.decision import Decision
from handful.ship.encoded import Encoded as Encoded
from handful.ship.encoded import class_text_vectors as class_text_vectors
from handful.ship.encoded import encode_dataset as encode_dataset
from handful.ship.rejection import PREFIX, Rejection

if TYPE_CHECKING:
    from torch import Tensor

    from handful.adapt.base import Features, Head
    from handful.evaluate import Assessment
    from handful.evaluate.label_set_assessment import LabelSetAssessment
    from handful.ship.evidence import Evidence

EMBEDDED = ("minilm", "efficientnet-lite0", "smollm2")
"""Encoders a model file may name: they come in wheels, whose files are known by their hashes."""
DELTA = "delta."
"""What the names of a delta's tensors begin with in a model file."""
OPTIONS = {"long", "crop", "tiles", "language_model"}
"""What `handful.encode.encoder` may be asked for beside a name."""


@dataclass
class Model:
    """What `fit` makes: predicts labels with probabilities, evaluates itself, saves to one file.

    Args:
        head: a fitted head.
        encoder_name: as in ``--encoder``; ``None`` for a model of features.
        fingerprint: identity of that encoder; a machine whose encoder differs is refused.
        scale: what multiplies the head's logits before the softmax, fitted on items the head had not seen.
        card: provenance, candidates and estimates, JSON-able.
        decision: for which population probabilities are, and how an answer follows from them.
        encoder_options: how the encoder looks at items, where that is not its usual way.
        standalone: whether `save` puts the encoder itself into the file.
        seconds: how long each stage of `fit` took; not saved, so that the same model is the same bytes.
        rejection: when an item is none of the classes; ``None``: never.
        delta: what was changed about the encoder, described and as tensors (`handful.tune.encoders.as_file`), which
            may be compressed (`handful.compress.encoders`); ``fingerprint`` is that of the encoder before.
        evidence: items that the report shows; not saved, so that no text or picture travels with a model.
    """

    head: Head
    encoder_name: str | None
    fingerprint: str
    scale: float
    card: dict[str, Any] = field(default_factory=dict)
    decision: Decision = field(default_factory=Decision)
    encoder_options: dict[str, Any] = field(default_factory=dict)
    standalone: bool = False
    seconds: dict[str, float] = field(default_factory=dict)
    evidence: Evidence | None = None
    rejection: Rejection | None = None
    delta: tuple[dict[str, Any], dict[str, Tensor]] | None = None
    _allowed: str | None = field(default=None, repr=False)
    _path: Path | None = field(default=None, repr=False)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, sorted: the columns of `predict_proba`."""
        return tuple(str(c) for c in self.head.classes_)

    @property
    def unseen(self) -> tuple[str, ...]:
        """Names of classes without examples, sorted, that ``classes=`` may ask for: their text is all that is known."""
        return tuple(str(c) for c in self.head.unseen_) if self.head.open_classes else ()

    def among(self, classes: str | Sequence[str]) -> tuple[str, ...]:
        """The classes that are meant by ``classes``.

        Args:
            classes: names; ``"all"``: `classes` and `unseen`; ``"new"``: `unseen`.

        Raises:
            BadInput: one that the model cannot answer for, none, one twice; a model of several labels an item.
        """
        if self.decision.sets is not None:
            raise BadInput("several labels an item: leave out classes=, and take the columns you want")
        everything = (*self.classes, *self.unseen)
        words = {"all": everything, "new": self.unseen}
        given = [classes] if isinstance(classes, str) else list(classes)
        if len(given) == 1 and given[0] in words and given[0] not in everything:
            if given[0] == "new" and not self.unseen:
                raise BadInput(f"classes 'new': {self._no_more()}")
            return words[given[0]]
        if strange := next((name for name in given if name not in everything), None):
            raise BadInput(f"class {strange!r} has no examples: {self._no_more()}")
        if not given or len(set(given)) < len(given):
            raise BadInput(f"classes to choose among are one or more different names, not {given}")
        return tuple(given)

    def _no_more(self) -> str:
        """Why the model answers for no other classes."""
        if self.unseen:
            return f"beside its examples' classes the model knows {', '.join(self.unseen[:8])}"
        if self.head.open_classes:
            return "nor did its class names (fit --class-names) tell what it is"
        return f"head {self.head.key!r} learns from examples only; fit with one of class text, such as 'gda' or 'lfa'"

    @cached_property
    def encoder(self) -> Encoder | None:
        """The encoder, loaded when first needed. Raises `BadInput` when it is not here or not the same, or when the
        file names one that its user has not named as well."""
        if self.encoder_name is None:
            return None
        found = self._encoder(self.encoder_name)
        if found.identity != self.fingerprint:
            raise BadInput(
                f"this model was made with encoder {self.encoder_name} ({self.fingerprint[:16]}…), not with the one "
                f"here ({found.identity[:16]}…): install the version it was made with"
            )
        if self.delta is None:
            return found
        from handful.compress.encoders import expanded_encoder

        return expanded_encoder(found, *self.delta)

    def tuned_by(self, delta: tuple[dict[str, Any], dict[str, Tensor]] | None, encoder: Encoder) -> None:
        """Take ``encoder``, which ``delta`` makes of the model's own; ``None`` changes nothing."""
        self.delta = delta
        self.__dict__["encoder"] = encoder

    def _encoder(self, name: str) -> Encoder:
        from handful.encode import encoder, encoder_from_parts

        if self.standalone and self._path is not None:
            from handful.ship.bundle import read_parts

            return encoder_from_parts(name, read_parts(self._path), self.encoder_options)
        if self._allowed is not None:
            name = self._allowed
        elif name not in EMBEDDED:
            raise BadInput(
                f"this model was made with encoder {name!r}, which is not part of it; a file does not choose what is "
                f"opened: name it yourself with --encoder"
            )
        return encoder(name, **self.encoder_options)

    def encode(
        self, data: Dataset, *, cache: bool = True, skip_bad: bool = False, progress: Progress | None = None
    ) -> Encoded:
        """A data set as the head takes it, in all the views it needs; see `handful.ship.encoded.encode_dataset`."""
        views = self.head.needs.views
        return encode_dataset(data, self.encoder, views=views, cache=cache, skip_bad=skip_bad, progress=progress)

    def _features(self, items: Any, progress: Progress | None = None) -> Features:
        data = items if isinstance(items, Dataset) else from_arrays(items)
        if self.encoder_name is not None and data.modality == "features":
            raise BadInput(f"the model reads {self.card.get('task', {}).get('modality', 'items')}, not features")
        return self.encode(data, progress=progress).features

    def predict_proba(
        self, items: Any, classes: str | Sequence[str] | None = None, *, progress: Progress | None = None
    ) -> np.ndarray:
        """Probabilities ``[n, C]`` of n items (texts, images, features, a `Dataset`), columns as `classes`.

        With ``classes`` (see `among`) they are among those, in their order; heads of class text take those of `unseen`
        too. Such probabilities know nothing of a population or of costs. Of several labels an item each has a
        probability of its own.

        Raises:
            BadInput: a class the model cannot answer for.
        """
        names = None if classes is None else self.among(classes)
        return self.proba_of(self._features(items, progress), names)

    def proba_of(self, features: Features, classes: Sequence[str] | None = None) -> np.ndarray:
        """Probabilities ``[n, C]`` of encoded items, among the names ``classes`` where they are given."""
        if classes is None:
            return self.decision.proba(self.logits_of(features))
        return Decision().proba(self.scale * np.asarray(self.head.logits(features, classes), dtype=np.float64))

    def logits_of(self, features: Features) -> np.ndarray:
        """Logits ``[n, C]`` of encoded items, scaled so that their softmax means what it says."""
        return self.scale * np.asarray(self.head.logits(features), dtype=np.float64)

    def rejects(self, features: Features, logits: np.ndarray) -> np.ndarray:
        """Which encoded items are none of the classes ``[n]``, by `logits_of` them; none where that is no answer."""
        if self.rejection is None:
            return np.zeros(len(features), bool)
        return self.rejection.rejects(features, logits)

    def predict(self, items: Any, classes: str | Sequence[str] | None = None) -> list[str]:
        """The class of each item: the most probable, or, where mistakes differ in cost, the one that costs least; what
        the model calls none of them (``rejection.other``), where it was fitted to.

        With ``classes`` the most probable among those, see `predict_proba`. Several labels are joined as they were in
        the examples; `predict_sets` gives them one by one.
        """
        if self.decision.sets is not None and classes is None:
            return [self.decision.sets.written(labels) for labels in self.predict_sets(items)]
        if classes is not None:
            names = self.among(classes)
            return [names[i] for i in self.predict_proba(items, names).argmax(axis=1)]
        features = self._features(items)
        logits = self.logits_of(features)
        best = [self.classes[i] for i in self.decision.ranking(self.decision.proba(logits))[:, 0]]
        if self.rejection is None:
            return best
        out = self.rejects(features, logits)
        return [self.rejection.other if none else name for none, name in zip(out, best, strict=True)]

    def predict_sets(self, items: Any) -> list[tuple[str, ...]]:
        """The labels of each item, sorted; none, one or several. Raises `BadInput` where the model gives one."""
        if self.decision.sets is None:
            raise BadInput("the model gives one label an item: predict() gives it")
        said = self.said_of(self._features(items))
        return [tuple(self.classes[i] for i in np.flatnonzero(row)) for row in said]

    def said_of(self, features: Features) -> np.ndarray:
        """Which labels encoded items are given ``[n, L]``, 0 or 1, by a model of several labels an item."""
        return np.asarray(self.head.predict(features))

    def evaluate(self, items: Any, labels: Sequence[Any] | None = None) -> Assessment | LabelSetAssessment:
        """How good the model is on labelled items it has not seen: ``(items, labels)`` or a labelled `Dataset`.

        Raises:
            BadInput: no labels, or a label the model does not know.
        """
        sets = self.decision.sets
        separator, none = (None, None) if sets is None else (sets.separator, sets.none)
        data = items if isinstance(items, Dataset) else from_arrays(items, labels, multi_label=separator, none=none)
        data = data.labelled
        if not len(data):
            raise BadInput("nothing to evaluate on: no item has a label")
        return self.assess(self._features(data), [str(label) for label in data.labels], data.groups)

    def assess(
        self,
        features: Features,
        labels: Sequence[str],
        groups: Sequence[str] | None = None,
        classes: Sequence[str] | None = None,
    ) -> Assessment | LabelSetAssessment:
        """`evaluate` on encoded items, as answered among the names ``classes`` where they are given."""
        from handful.evaluate import assess

        if self.decision.sets is not None:
            from handful.ship.label_sets import assess_sets

            return assess_sets(self, self.decision.sets, features, labels, groups)
        names = self.classes if classes is None else tuple(classes)
        if unknown := sorted(set(labels) - set(names)):
            whose = "the model's classes" if classes is None else "the classes that are asked for"
            raise BadInput(f"label {unknown[0]!r} is none of {whose}: {', '.join(names[:8])}")
        return assess(np.asarray(labels), self.proba_of(features, classes), names, groups=groups)

    def transductive(self) -> Model:
        """The model whose answers sway each other when they are asked for together.

        Raises:
            BadInput: its head answers each item by itself.
        """
        if not self.head.needs.transductive:
            raise BadInput(f"--transductive: the model's head {self.head.key!r} answers each item by itself")
        head = copy(self.head).set_params(transductive=True)
        return replace(self, head=head)

    def save(self, path: str | Path) -> None:
        """Write one file, whole or not at all. Raises `BadInput` for a head that no file can name: `check_savable`."""
        from handful.ship.bundle import write_bundle

        check_savable(type(self.head))
        description: dict[str, Any] = {
            "head": {"key": self.head.key, "parameters": self.head.parameters()},
            "classes": list(self.classes),
            "width": int(self.head.n_features_in_),
            "encoder": {
                "name": self.encoder_name,
                "fingerprint": self.fingerprint,
                "options": self.encoder_options,
                "standalone": self.standalone,
            },
            "scale": float(self.scale),
            "decision": self.decision.as_dict(),
            "reject": None if self.rejection is None else self.rejection.as_dict(),
            "card": self.card,
        }
        if self.unseen:
            description["unseen"] = list(self.unseen)
        more = {} if self.rejection is None else self.rejection.tensors()
        if self.delta is not None:
            description["encoder"]["delta"], changes = self.delta
            more |= {f"{DELTA}{name}": tensor for name, tensor in changes.items()}
        parts = self.encoder.parts() if self.standalone and self.encoder is not None else {}
        write_bundle(path, description, {**self.head.state_, **more}, parts)

    def report(self, path: str | Path) -> None:
        """Write the card as one self-contained HTML page."""
        from handful.ship.report import write_report

        write_report({**self.card, "seconds": self.seconds}, path, self.evidence)

    @classmethod
    def load(cls, path: str | Path, encoder: str | None = None) -> Model:
        """Read a model file; nothing it holds is executed, and nothing it names is opened.

        Args:
            path: the file.
            encoder: where its encoder is, for a model made with one that is not embedded (``hf:NAME`` or
                ``hf:FOLDER``); it must be the very one the model was made with.

        Raises:
            BadInput: it is no model, is damaged or does not fit together.
        """
        from handful.adapt import HEADS, head_class
        from handful.ship.bundle import read_bundle

        description, state = read_bundle(path)
        try:
            key, classes = description["head"]["key"], [str(c) for c in description["classes"]]
            if ":" in key:  # only registered heads: a file does not choose what is imported
                raise BadInput(f"{path} names an unknown head {key!r}; there are: {', '.join(HEADS)}")
            kind = head_class(key)
            parameters = {k: v for k, v in description["head"]["parameters"].items() if k in kind._get_param_names()}
            unseen = np.asarray([str(c) for c in description.get("unseen") or ()], dtype=str)
            apart = {name: state.pop(name) for name in list(state) if name.startswith(PREFIX)}
            changes = {name.removeprefix(DELTA): state.pop(name) for name in list(state) if name.startswith(DELTA)}
            head = kind.restore(parameters, np.asarray(classes), state, int(description["width"]), unseen)
            head.check_state()
            scale, card = float(description["scale"]), description["card"]
            if not (math.isfinite(scale) and scale > 0) or not isinstance(card, dict):
                raise BadInput(f"{path} is not a whole Handful model: its scale or its card makes no sense")
            known = [*classes, *unseen.tolist()]
            if classes != sorted(set(classes)) or len(classes) < 2 or len(set(known)) < len(known):
                raise BadInput(f"{path} is not a whole Handful model: its classes are not in order")
            tower = description["encoder"]
            options = dict(tower.get("options") or {})
            if not isinstance(tower["name"], (str, type(None))) or not options.keys() <= OPTIONS:
                raise BadInput(f"{path} is not a whole Handful model: its encoder makes no sense")
            decision = Decision.from_dict(description.get("decision") or {}, len(classes))
            if head.several_labels != (decision.sets is not None):
                raise BadInput(f"{path} is not a whole Handful model: head and decision differ in labels an item")
            delta = tower.get("delta")
            if not isinstance(delta, (dict, type(None))) or (delta is None and changes):
                raise BadInput(f"{path} is not a whole Handful model: what it changes of its encoder makes no sense")
            given, rejection = description.get("reject"), None
            if given is not None:
                rejection = Rejection.from_dict(given, apart, classes, int(description["width"]))
            elif apart:
                raise BadInput(f"{path} is not a whole Handful model: its tensor {next(iter(apart))!r} is odd")
            return cls(
                head,
                tower["name"],
                str(tower["fingerprint"]),
                scale,
                card,
                decision,
                options,
                bool(tower.get("standalone", False)),
                rejection=rejection,
                delta=None if delta is None else (delta, changes),
                _allowed=encoder,
                _path=Path(path),
            )
        except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
            if isinstance(error, BadInput):
                raise
            raise BadInput(f"{path} is not a whole Handful model: {error!r}") from error


def check_savable(kind: type[Head]) -> None:
    """Raise `BadInput` for a head that `Model.load` could not find again: a file only names what is registered."""
    from handful.adapt import head_class

    try:
        if ":" not in kind.key and head_class(kind.key) is kind:
            return
    except BadInput:
        pass
    raise BadInput(
        f"a model file never imports outside code, so that one with head {kind.__module__}:{kind.__qualname__} could "
        "not be read again: register it in the entry point group 'handful.heads' under its key, or leave out --out"
    )


def load(path: str | Path, encoder: str | None = None) -> Model:
    """`Model.load`."""
    return Model.load(path, encoder)
