"""Every head keeps the contract of `check_head`, and `check_head` notices one that does not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from sizes import SMALL
from torch import Tensor

from handful.adapt import HEADS, head
from handful.adapt.base import Head
from handful.adapt.inputs import zero_shot_logits
from handful.core.task import Query, State, Task
from handful.errors import BadInput
from handful.testing import CHECKS, check_head, made_up_task

STEPS = "every step sees a few examples, drawn in an order"
FEW_A_STEP = dict.fromkeys(("order", "weights", "soft labels"), STEPS)
REASONS: Mapping[str, Mapping[str, str]] = {
    "tip-adapter-f": {"soft labels": "two keys that start as one and vote for different classes are trained apart"},
    "amu-tuning": FEW_A_STEP,
    "metaopt": {"soft labels": "an example of two classes has one set of margins, two examples have two"},
    "vdt": {"soft labels": STEPS},
    **{key: dict.fromkeys(FEW_A_STEP, "row by row, in an order drawn by place") for key in ("devise", "ale", "latem")},
    "sje": dict.fromkeys(("weights", "soft labels"), "row by row, in an order drawn by place"),
    "laso": FEW_A_STEP,
    "lfa": dict.fromkeys(("order", "soft labels"), "splits and rows of a step are drawn by place"),
    "lfa-unsupervised": dict.fromkeys(FEW_A_STEP, "splits and what disturbs a row are drawn by place"),
    **{key: {"soft labels": "of the rows of an item each pass sees one"} for key in ("prolip", "linear-adapter")},
    "prolip-tip-adapter-f": dict.fromkeys(("weights", "soft labels"), "rows of an item are views of one image"),
    "proto-clip-f": dict.fromkeys(FEW_A_STEP, "every step asks a few classes and rows, drawn by their place"),
    "putm": dict.fromkeys(("order", "soft labels"), "the first row is the first coordinate of the network's inputs"),
    "limit-fscil": FEW_A_STEP,
    "mamba-fscil": {"order": "slots go to the classes in their order", "soft labels": "a row goes to one direction"},
    "fscil-tricks": {
        "order": "slots go to the classes in their order",
        **dict.fromkeys(("weights", "soft labels"), STEPS),
    },
    "auto": {
        "precision": "plans that tie are told apart by the last digits",
        "leave-one-out": "what was chosen from all examples is held, and no parameter can hold it",
    },
}
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("prototypes", {"metric": "cosine", "temperature": 0.1}),
    ("matching-networks", {"normalize": "support", "temperature": 0.5}),
    ("gda", {"alpha": 1.0, "shrinkage": "ks", "priors": "empirical"}),
    ("gda", {"alpha": 0.5, "shrinkage": "ledoit-wolf"}),
    ("gda", {"alpha": 0.5, "shrinkage": "oas", "normalize": False}),
    ("tip-adapter", {"alpha": "loo", "beta": "loo"}),
    ("proker", {"beta": "loo", "lam": "loo", "convention": "krr"}),
    ("proker", {"beta": 0.5, "lam": "loo"}),
    ("kernel-ridge", {"beta": 2.0, "alpha": 0.5}),
    ("logistic", {"C": 10.0, "normalize": True}),
    ("gpam", {"n_components": 2, "shrinkage": 2.0, "steps": 5}),
    ("gpam", {"margin": 0.3}),
]


@pytest.mark.parametrize("name", CHECKS)
@pytest.mark.parametrize("key", HEADS)
def test_contract(key: str, name: str, request: pytest.FixtureRequest) -> None:
    if key == "auto":
        pytest.importorskip("handful.adapt.auto")
    if reason := REASONS.get(key, {}).get(name):
        request.applymarker(pytest.mark.xfail(reason=reason, strict=(key, name) != ("auto", "precision")))
    CHECKS[name](head(key, **SMALL.get(key, {})))


def test_expected_failures_are_given_by_name() -> None:
    check_head(head("tip-adapter-f"), expected_failures=REASONS["tip-adapter-f"])


@pytest.mark.parametrize(("key", "params"), VARIANTS, ids=lambda value: str(value))
def test_contract_of_variants(key: str, params: dict[str, Any]) -> None:
    check_head(head(key, **params))


@dataclass(eq=False, repr=False, kw_only=True)
class Nearest(Head):
    """A head as a user may write one: the mean vote of the examples, by inverse distance."""

    flaw: str = ""
    seen: ClassVar[list[float]] = [0.0]

    def adapt(self, task: Task) -> State:
        y = torch.where(task.y > 0, 1.0, 0.0).to(task.y.dtype) if self.flaw == "weights" else task.y
        x = task.support if self.flaw == "padding" else task.x
        if self.flaw == "order":
            y = y * torch.arange(1, y.shape[-2] + 1, dtype=y.dtype)[:, None]
        if self.flaw == "batch":
            x = x - x.mean(0, keepdim=True) if x.dim() > 2 else x
        if self.flaw == "repeatable":
            self.seen[0] += 1
            x = x + self.seen[0]
        return {"x": x, "y": y}

    def answer(self, state: State, query: Query) -> Tensor:
        near = 1 / (1 + torch.cdist(query.x, state["x"]))
        near = near + near.sum() if self.flaw == "a query asked alone" else near
        return near @ state["y"]

    def leave_one_out(self, task: Task) -> Tensor | None:
        if self.flaw != "leave-one-out":
            return None
        return self.answer(self.adapt(task), Query(task.support))  # every row votes on itself


def test_a_users_own_head_passes() -> None:
    check_head(Nearest())


@pytest.mark.parametrize("flaw", ["weights", "padding", "order", "batch", "repeatable", "leave-one-out"])
def test_a_flaw_is_found_by_its_check(flaw: str) -> None:
    with pytest.raises(AssertionError):
        CHECKS[flaw](Nearest(flaw=flaw))
    with pytest.raises(AssertionError, match=r"^Nearest fails the check"):
        check_head(Nearest(flaw=flaw))


def test_queries_that_sway_each_other_are_found() -> None:
    with pytest.raises(AssertionError, match=r"a query asked alone|padded"):
        check_head(Nearest(flaw="a query asked alone"))


def test_an_expected_failure_that_passes_is_an_error() -> None:
    with pytest.raises(AssertionError, match="expected to fail"):
        check_head(head("prototypes"), expected_failures={"order": "no reason"})
    with pytest.raises(ValueError, match="no such check: colour"):
        check_head(head("prototypes"), expected_failures={"colour": ""})


class TestCheckState:
    """A model file's state is believed only after this."""

    def fitted(self) -> Head:
        task = made_up_task(head("gda"))
        return head("gda").fit(task.support.numpy(), task.labels.argmax(-1).numpy())

    def test_whole(self) -> None:
        self.fitted().check_state()

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"bias": torch.zeros(1)}, "'bias' has shape"),
            ({"weight": torch.zeros(3, 6)}, "'weight' has shape"),
            ({"alpha": torch.tensor(torch.inf)}, "'alpha' has numbers that are not finite"),
            ({"extra": torch.zeros(1)}, "'extra' is odd"),
        ],
    )
    def test_not_whole(self, change: State, message: str) -> None:
        fitted = self.fitted()
        fitted.state_ = {**fitted.state_, **change}
        with pytest.raises(BadInput, match=message):
            fitted.check_state()

    def test_a_head_that_declares_no_shapes_must_still_answer(self) -> None:
        task = made_up_task(Nearest())
        own = Nearest().fit(task.support.numpy(), task.labels.argmax(-1).numpy())
        own.check_state()
        own.state_["y"] = own.state_["y"][:, :2]
        with pytest.raises(BadInput, match="not for 3 classes"):
            own.check_state()
        own.state_["y"] = own.state_["y"][:2]
        with pytest.raises(BadInput, match="does not answer"):
            own.check_state()


class TestClassText:
    """Class text beside the examples."""

    x = np.random.default_rng(0).normal(size=(6, 4))
    y = np.array(["a", "b", "c"] * 2)

    def test_a_class_without_text_is_neither_preferred_nor_shunned(self) -> None:
        fitted = head("gda", text={"a": self.x[0], "b": self.x[1]}).fit(self.x, self.y)
        prior = zero_shot_logits(torch.as_tensor(self.x), {}, fitted.state_["text"], 100.0)
        torch.testing.assert_close(prior[:, 2], prior[:, :2].mean(1))

    def test_in_the_space_of_another_view(self) -> None:
        from handful.adapt.base import Features

        aligned = np.random.default_rng(1).normal(size=(6, 2))
        text = {"a": aligned[0], "b": aligned[1], "c": aligned[2]}
        fitted = head("zero-shot", text=text).fit(Features(self.x, {"aligned": aligned}), self.y)
        assert fitted.predict(Features(self.x[:3], {"aligned": aligned[:3]})).tolist() == ["a", "b", "c"]
        with pytest.raises(BadInput, match="view 'aligned'"):
            fitted.predict(self.x)

    def test_several_vectors_a_class_count_by_their_mean_direction(self) -> None:
        rows = {"a": self.x[[0, 3]], "b": self.x[1], "c": self.x[2]}
        unit = self.x[[0, 3]] / np.linalg.norm(self.x[[0, 3]], axis=1, keepdims=True)
        one = {**rows, "a": unit.mean(0)}
        many = head("zero-shot", text=rows).fit(self.x, self.y).logits(self.x)
        np.testing.assert_allclose(many, head("zero-shot", text=one).fit(self.x, self.y).logits(self.x), atol=1e-9)

    def test_zero_shot_from_text_alone(self) -> None:
        from handful.adapt.zero_shot import ZeroShot

        fitted = ZeroShot.from_text({"b": [0.0, 2.0], "a": [3.0, 0.0]})
        assert fitted.predict([[1.0, 0.1], [0.1, 1.0]]).tolist() == ["a", "b"]
        with pytest.raises(BadInput, match="one class only"):
            ZeroShot.from_text({"a": [1.0]})

    @pytest.mark.parametrize("bad", [[0.0, 0.0, 0.0, 0.0], [np.nan, 0.0, 0.0, 1.0], np.zeros((1, 1, 4))])
    def test_vectors_without_direction_are_refused(self, bad: Any) -> None:
        with pytest.raises(BadInput, match="class text of 'a'"):
            head("gda", text={"a": bad, "b": self.x[1], "c": self.x[2]}).fit(self.x, self.y)


def test_many_queries_are_answered_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    task = made_up_task(head("gda"), shots=(9, 9, 9))
    fitted = head("gda").fit(task.support.numpy(), task.labels.argmax(-1).numpy())
    whole = fitted.logits(task.support.numpy())
    monkeypatch.setattr("handful.adapt.base.CHUNK", 4)
    np.testing.assert_allclose(fitted.logits(task.support.numpy()), whole, atol=1e-12)


def test_no_module_takes_the_place_of_a_public_function() -> None:
    import pkgutil

    import handful.adapt

    modules = {module.name for module in pkgutil.iter_modules(handful.adapt.__path__)}
    assert not modules & {"head", "head_class", "list_heads"}


BAD_PARAMETERS: list[tuple[str, dict[str, Any]]] = [
    ("prototypes", {"metric": "manhattan"}),
    ("prototypes", {"temperature": 0.0}),
    ("prototypes", {"temperature": "1"}),
    ("pt-map", {"beta": "1"}),
    ("pt-map", {"class_prior": 0.5}),
    ("pt-map", {"class_prior": None}),
    ("putm", {"alpha": 0.2}),
    ("vdt", {"dropout": "half"}),
    ("vdt", {"dropout": 1.0}),
    ("mf-adapter", {"dilations": 2}),
    ("mf-adapter", {"dilations": ()}),
    ("mf-adapter", {"window": 0}),
    ("mf-adapter", {"sharpness": -1.0}),
    ("gda", {"alpha": None}),
    ("tip-x", {"logit_scale": 0.0}),
    ("proto-clip", {"logit_scale": 0.0}),
    ("matching-networks", {"normalize": "query"}),
    ("matching-networks", {"temperature": -1.0}),
    ("matching-networks", {"epsilon": 0.0}),
    ("rfs", {"C": 0.0}),
    ("metaopt", {"C": 0.0}),
    ("metaopt", {"ridge": float("inf")}),
    ("logistic", {"C": "loo"}),
    ("logistic", {"folds": 1, "C": "cv"}),
    ("logistic", {"tolerance": 0.0}),
    ("gda", {"alpha": -1.0}),
    ("gda", {"alpha": "cv"}),
    ("gda", {"shrinkage": "some"}),
    ("gda", {"priors": "given"}),
    ("tip-adapter", {"alpha": float("nan")}),
    ("tip-adapter", {"beta": "cv"}),
    ("tip-adapter-f", {"lr": 0.0}),
    ("tip-adapter-f", {"epochs": -1}),
    ("proker", {"lam": 0.0}),
    ("proker", {"beta": "many"}),
    ("proker", {"convention": "ridge"}),
    ("kernel-ridge", {"alpha": 0.0}),
    ("kernel-ridge", {"beta": float("inf")}),
    ("kernel-ridge", {"alpha": "shots"}),
]


@pytest.mark.parametrize(("key", "params"), BAD_PARAMETERS, ids=lambda value: str(value))
def test_parameters_that_make_no_sense_are_refused(key: str, params: dict[str, Any]) -> None:
    task = made_up_task(head(key))
    with pytest.raises(BadInput, match=rf"^{next(iter(params))}\b") as caught:
        head(key, **params).adapt(task)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["prototypes", "gda", "ape", "vdt"])
@pytest.mark.parametrize(
    "params",
    [{"logit_scale": float("nan")}, {"logit_scale": -1.0}, {"logit_scale": "100"}, {"random_state": "a"}],
    ids=str,
)
def test_what_all_heads_take_is_checked(problem: Any, key: str, params: dict[str, Any]) -> None:
    x, y, _, text = problem
    with pytest.raises(BadInput, match=rf"^{next(iter(params))} ") as caught:
        head(key, text=dict(enumerate(text)), **params).fit(x, y)
    assert "\n" not in str(caught.value)


def test_numbers_of_numpy_are_numbers_and_are_kept(problem: Any) -> None:
    x, y, query, text = problem
    given: dict[str, Any] = {"logit_scale": np.float32(40), "random_state": np.int64(3), "alpha": np.float32(0.5)}
    for key, more in (("ape", {"n_channels": np.int64(6)}), ("gda", {}), ("ape-t", {"epochs": np.int64(2)})):
        fitted = head(key, text=dict(enumerate(text)), **given, **more).fit(x, y)
        kept = fitted.parameters()
        for name, value in {**given, **more}.items():
            assert kept[name] == value
            assert type(kept[name]) in (int, float)
        again = type(fitted).restore(kept, fitted.classes_, fitted.state_, fitted.n_features_in_, fitted.classes_[:0])
        np.testing.assert_allclose(again.logits(query), fitted.logits(query), atol=1e-9)


@pytest.mark.parametrize(
    ("views", "message"),
    [
        ({"local": np.ones((14, 9))}, "view 'local' holds numbers"),
        ({"local": np.ones((14, 3, 3, 10))}, "view 'local' holds numbers"),
        ({"aligned": np.ones(14)}, "view 'aligned' holds numbers"),
        ({"any": np.array(["a"] * 14)}, "view 'any' holds numbers"),
        ({"any": [[1.0]] * 13 + [[1.0, 2.0]]}, "view 'any' must be an array of numbers"),
        ({"any": np.full((14, 1), np.nan)}, "view 'any' at row 0"),
    ],
)
def test_views_that_are_no_tables_of_numbers_are_refused(problem: Any, views: dict[str, Any], message: str) -> None:
    from handful.adapt.base import Features

    x, y, _, text = problem
    with pytest.raises(BadInput, match=message):
        head("gda", text=dict(enumerate(text))).fit(Features(x, views), y)


def test_tasks_that_do_not_fit_together_are_refused() -> None:
    from handful.core.task import make_task

    with pytest.raises(BadInput, match="differ before the last axis"):
        make_task(torch.zeros(3, 2), torch.zeros(4, 2))
    with pytest.raises(BadInput, match="empty"):
        make_task(torch.zeros(0, 2), torch.zeros(0, 2))
    with pytest.raises(BadInput, match="one class only"):
        make_task(torch.zeros(3, 2), torch.zeros(3, 1))
    with pytest.raises(BadInput, match="no queries"):
        head("prototypes").logits(replace(made_up_task(head("prototypes")), query=None))
