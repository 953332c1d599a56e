"""What is asked of the scikit-learn face of a head: bad input is refused in one line, a fitted head survives saving."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from torch import Tensor

from handful.adapt.base import Features, Head
from handful.core.task import State
from handful.errors import BadInput
from handful.testing.tasks import WAYS, made_up_task


def _fitted(head: Head, dtype: Any = np.float32) -> tuple[Head, Features, np.ndarray]:
    task = made_up_task(head)
    names = np.array(["crow", "dove", "emu"])
    labels = names[task.labels.argmax(-1).numpy()]
    views = {name: view.numpy().astype(dtype) for name, view in task.views.items()}
    features = Features(task.support.numpy().astype(dtype), views)
    if head.needs.text:
        assert task.text is not None
        head.set_params(text=dict(zip(names, task.text.mean.numpy(), strict=True)))
    if task.background is not None:
        assert task.background.labels is not None
        head.set_params(background=(task.background.x.numpy(), task.background.labels.numpy()))
    return head, features, labels


def estimator_face(head: Head) -> None:
    """It fits, predicts and refuses to predict before, as scikit-learn has it."""
    head, features, labels = _fitted(head)
    try:
        head.predict(features)
    except NotFittedError:
        pass
    else:
        raise AssertionError("predict before fit does not raise NotFittedError")
    assert head.fit(features, labels) is head, "fit does not return the head"
    assert head.classes_.tolist() == ["crow", "dove", "emu"], "classes_ are not the sorted labels"
    p = head.predict_proba(features)
    assert p.shape == (len(labels), WAYS), f"predict_proba of shape {p.shape}"
    assert np.allclose(p.sum(1), 1, atol=1e-5) and (p >= 0).all(), "probabilities that do not add up to 1"
    assert (head.predict(features) == head.classes_[p.argmax(1)]).all(), "predict is not the most probable class"


def saving(head: Head) -> None:
    """Plain tensors go to a file and come back to the same answers; damaged ones are refused."""
    import safetensors.torch

    head, features, labels = _fitted(head)
    head.fit(features, labels)
    assert all(isinstance(t, Tensor) for t in head.state_.values()), "the state is not made of tensors"
    blob = safetensors.torch.save({name: t.contiguous() for name, t in head.state_.items()})
    again = type(head).restore(head.parameters(), head.classes_, safetensors.torch.load(blob), head.n_features_in_)
    again.check_state()
    assert np.array_equal(again.logits(features), head.logits(features)), "a restored head answers otherwise"
    for name, tensor in head.state_.items():
        rest = {k: t for k, t in head.state_.items() if k != name}
        spoilt: list[tuple[str, State]] = []
        if tensor.is_floating_point() and tensor.numel():
            spoilt.append(("NaN", {**rest, name: torch.full_like(tensor, torch.nan)}))
        if head.shapes:  # without them only what the head reads can be judged
            spoilt.append(("missing", rest))
        if tensor.dim() and _width_is_known(head, name):
            spoilt.append(("wider", {**rest, name: torch.cat([tensor, tensor[..., :1]], -1)}))
        for how, state in spoilt:
            _refuses(f"a state whose {name!r} is {how}", _broken, head, state)


def _width_is_known(head: Head, name: str) -> bool:
    """Whether something beside this tensor says how wide it is; of text, and of a view, only the queries do."""
    if not head.shapes or name == "text":
        return False
    last = head.shapes[name].split()[-1]
    return last in ("C", "D") or any(last in axes.split() for other, axes in head.shapes.items() if other != name)


def _broken(head: Head, state: State) -> None:
    type(head).restore(head.parameters(), head.classes_, state, head.n_features_in_).check_state()


def bad_input(head: Head) -> None:
    """What cannot be used is refused with one clear line."""
    head, features, labels = _fitted(head)
    x = features.x
    for value in (np.nan, np.inf):
        spoilt = x.copy()
        spoilt[1, 2] = value
        _refuses(f"{value} among the features", head.fit, replace(features, x=spoilt), labels)
    _refuses("an empty support", head.fit, features.take(slice(0, 0)), labels[:0])
    _refuses("a label too few", head.fit, features, labels[:-1])
    _refuses("one class", head.fit, features, np.full(len(labels), "crow"))
    _refuses("features of one dimension", head.fit, replace(features, x=x[0]), labels)
    _refuses("a device there is not", clone(head).set_params(device="no-such-device").fit, features, labels)
    if head.directions:
        zeros = np.where(np.arange(len(x))[:, None] == 2, 0, x)
        _refuses("a row of zeros", head.fit, replace(features, x=zeros), labels)
    if head.needs.background:
        base, kinds = head.get_params()["background"]
        _refuses("no background", clone(head).set_params(background=None).fit, features, labels)
        narrower = (base[:, :-1], kinds)
        _refuses("a background of another width", clone(head).set_params(background=narrower).fit, features, labels)
    if head.needs.text:
        partly = {"crow": x[0]}
        _refuses("no class text", clone(head).set_params(text=None).fit, features, labels)
        _refuses("class text for one class only", clone(head).set_params(text=partly).fit, features, labels)
        narrow = dict.fromkeys(np.unique(labels), x[0, :-1])
        _refuses("class text of another width", clone(head).set_params(text=narrow).fit, features, labels)
        words = dict.fromkeys(np.unique(labels), "a bird")
        _refuses("sentences as class text", clone(head).set_params(text=words).fit, features, labels)
    head.fit(features, labels)
    _refuses("features of another width", head.predict, replace(features, x=x[:, :-1]))


def _refuses(what: str, act: Callable[..., Any], *args: Any) -> None:
    try:
        act(*args)
    except BadInput as error:
        assert "\n" not in str(error).strip() and str(error), f"{what}: the message is not one line: {error}"
    except Exception as error:
        raise AssertionError(f"{what}: raises {type(error).__name__} ({error}), not BadInput") from error
    else:
        raise AssertionError(f"{what} is not refused")


CHECKS: Mapping[str, Callable[[Head], None]] = {
    "estimator face": estimator_face,
    "saving": saving,
    "bad input": bad_input,
}
"""The checks by name."""
