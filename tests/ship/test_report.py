"""The report: one page that stands alone, says what the card says, and lets nothing from data act."""

from __future__ import annotations

import base64
import copy
import errno
import hashlib
import json
import os
import re
import time
from itertools import pairwise
from pathlib import Path

import pytest
from report_cards import DATE, HOSTILE, SPELT, Page, assessment, make_card, strings

from handful.errors import HandfulError
from handful.ship.report import render, write_report
from handful.ship.shown import amount, plain, share, visible


@pytest.fixture(scope="module")
def page() -> Page:
    """The page of an ordinary card."""
    return Page(render(make_card()))


def test_the_headline_is_the_cards_accuracy(page: Page) -> None:
    accuracy = make_card()["estimate"]["assessment"]["accuracy"]
    value, low, high = (f"{100 * accuracy[key]:.0f}" for key in ("value", "low", "high"))
    assert f"Accuracy on new items {value} % [{low}, {high}]" in page.text
    same = "from the same source, in the same mix of classes"
    assert f"Of 100 new items {same}, on average {low} to {high} get the right label." in page.text
    assert "Estimated by 5 stratified folds over 60 labelled items" in page.text


def test_every_measure_and_class_shows_with_its_interval(page: Page) -> None:
    found = make_card()["estimate"]["assessment"]
    for key in ("balanced_accuracy", "macro_f1", "calibration_error"):
        assert f"{share(found[key]).value} {share(found[key]).interval}" in page.text  # type: ignore[union-attr]
    loss = found["log_loss"]
    assert f"{loss['value']:.2f} [{loss['low']:.2f}, {loss['high']:.2f}]" in page.text
    for row in found["per_class"]:
        recall, precision, f1 = (share(row[key]) for key in ("recall", "precision", "f1"))
        texts = " ".join(f"{e.value} {e.interval}" for e in (recall, precision, f1))  # type: ignore[union-attr]
        assert f"{row['class']} {row['n']} {texts}" in page.text


def test_the_weakest_class_comes_first(page: Page) -> None:
    rows = make_card()["estimate"]["assessment"]["per_class"]
    by_recall = [row["class"] for row in sorted(rows, key=lambda row: row["recall"]["value"])]
    table = page.text[page.text.index("Classes, the weakest first") :]
    assert sorted(by_recall, key=lambda name: table.index(f"{name} 20")) == by_recall
    assert f"{by_recall[0]} is found least often" in page.text


def test_confusions_and_the_matrix_add_up() -> None:
    card = make_card()
    found = card["estimate"]["assessment"]
    text = render(card)
    cells = re.findall(r'<td class="[xy]\d" title="(\d+) of (\d+) items of', text)
    assert sum(int(n) for n, _ in cells) == found["n"]
    assert {int(total) for _, total in cells} == {20}
    worst = found["confused"][0]
    assert f"{worst['true']} {worst['predicted']} {worst['n']} {share(worst['rate']).value}" in Page(text).text  # type: ignore[union-attr]


def test_what_it_was_made_from(page: Page) -> None:
    for part in (
        "A text classifier for 3 classes from 60 labelled examples",
        "60 labelled, 20 a class; 1,234 unlabelled items left aside",
        "data/tickets.csv; text column subject, body, label column intent",
        "minilm, 384 numbers an item",
        "gda: best by leave-one-out",
        "used, 50 % of the answer: names agree with the examples",
        "1 item could not be used.",
        "column id was taken for no text",
        "tickets.csv row 17: empty text",
        "2.4 seconds: read 0.1, encode 2.2",
        "0.1.0, seed 7, chosen and reported by accuracy",
        "ab" * 32,
        "prototypes 0.7812",
        "gda 0.8421 ✓ chosen",
    ):
        assert part in page.text, part


def test_the_page_stands_alone_and_runs_nothing(page: Page) -> None:
    names = {tag for tag, _ in page.tags}
    assert not names & {
        "script",
        "img",
        "iframe",
        "object",
        "embed",
        "form",
        "base",
        "input",
        "button",
        "audio",
        "video",
    }
    assert [attrs["href"] for attrs in page.all("link")] == ["data:,"]
    for tag, attrs in page.tags:
        assert not any(name.startswith("on") or name in {"style", "src", "srcset", "action"} for name in attrs), tag
        for value in attrs.values():
            assert "://" not in (value or ""), (tag, attrs)
    anchors = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(set(anchors)) == len(anchors)
    assert {attrs["href"] for attrs in page.all("a")} <= {f"#{anchor}" for anchor in anchors}


def test_the_policy_allows_the_one_style_sheet_only() -> None:
    text = render(make_card())
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    (style,) = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    rules = dict(rule.strip().split(" ", 1) for rule in policy.replace("&#39;", "'").split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["style-src"] == f"'sha256-{digest}'"
    assert "script-src" not in rules
    assert "@import" not in style
    assert "url(" not in style
    assert text.index("Content-Security-Policy") < text.index("<style>")


def test_the_page_can_be_read_without_seeing_it(page: Page) -> None:
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert len(page.all("caption")) == len(page.all("table"))
    assert all("scope" in attrs for attrs in page.all("th"))
    assert all(attrs.get("aria-hidden") or attrs.get("aria-label") for attrs in page.all("svg"))
    assert page.all("html") == [{"lang": "en"}]


def test_text_from_data_is_escaped_and_nothing_in_it_is_hidden() -> None:
    ordinary = make_card(test={"source": "t.csv", "assessment": assessment(["double_charge", "invoice", "refund"], 60)})
    card = strings(ordinary, HOSTILE)
    card["metric"] = "accuracy"
    text = render(card)
    page = Page(text)
    assert {tag for tag, _ in page.tags} <= {tag for tag, _ in Page(render(ordinary)).tags}
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b\u202a-\u202e\u2066-\u2069\ud800-\udfff]", text)
    assert page.text.count(SPELT) > 20
    assert any(SPELT in (attrs.get("title") or "") for attrs in page.all("td"))


@pytest.mark.parametrize("metric", ["accuracy", "balanced", "macro-f1", "log-loss"])
def test_the_metric_asked_for_is_the_headline(metric: str) -> None:
    card = make_card(metric=metric)
    found = card["estimate"]["assessment"]
    shown = {
        "accuracy": ("Accuracy", share(found["accuracy"])),
        "balanced": ("Balanced accuracy", share(found["balanced_accuracy"])),
        "macro-f1": ("Macro-F1", share(found["macro_f1"])),
        "log-loss": ("Log loss", amount(found["log_loss"], 1.0)),
    }
    name, expected = shown[metric]
    assert expected is not None
    assert f"{name} on new items {expected.value} {expected.interval}" in Page(render(card)).text


def test_a_test_on_items_kept_apart_is_quoted_before_the_estimate() -> None:
    measured = assessment(["double_charge", "invoice", "refund"], 300, seed=3)
    card = make_card(test={"source": "held_out.csv", "assessment": measured})
    text = Page(render(card)).text
    quoted, beside = share(measured["accuracy"]), share(card["estimate"]["assessment"]["accuracy"])
    assert quoted is not None
    assert beside is not None
    assert f"Accuracy on new items {quoted.value} {quoted.interval}" in text
    assert "Measured on held_out.csv: 300 labelled items it never learnt from" in text
    assert (
        f"Beside it, estimated by 5 stratified folds over 60 labelled items: {beside.value} {beside.interval}" in text
    )


def test_without_an_estimate_the_page_says_why() -> None:
    why = "not estimated: no class has a second example to test on"
    card = make_card(estimate={"method": why, "assessment": None}, experiment={"shots": 1, "note": "an experiment"})
    page = Page(render(card))
    assert "Not estimated: no class has a second example to test on." in page.text
    assert "it learnt from 1 example a class only" in page.text
    assert "new items get the right label" not in page.text


def test_groups_are_named() -> None:
    card = make_card()
    card["estimate"]["assessment"]["groups"] = 41
    assert "The interval rests on 41 groups." in Page(render(card)).text


@pytest.mark.parametrize("part", [*make_card(), "everything"])
def test_a_card_may_lack_any_part(part: str) -> None:
    card = {key: value for key, value in make_card().items() if key != part and part != "everything"}
    assert len(Page(render(card)).all("h1")) == 1
    if part != "everything":
        assert len(Page(render(make_card(**{part: None}))).all("h1")) == 1


def test_classes_without_items_or_answers_are_said_to_be_so() -> None:
    card = make_card()
    found = card["estimate"]["assessment"]
    found["per_class"][0].update(n=0, recall=None, precision=None, f1=None)
    found["confusion"][0] = [0, 0, 0]
    text = Page(render(card)).text
    assert "double_charge 0 not judged – –" in text
    assert "double_charge is found least often" not in text


def test_candidates_show_whatever_they_tell() -> None:
    rows = [
        {
            "score": {"value": 0.5, "low": 0.25, "high": 0.75},
            "name": "a",
            "chosen": True,
            "parameters": {"beta": [1, 2.5]},
        },
        {"name": "b", "why_not": "needs text", "accuracy": 0.8125},
    ]
    text = Page(render(make_card(candidates=rows))).text
    assert "name score accuracy parameters why not chosen a 0.5 [0.25, 0.75] – beta: 1, 2.5 – ✓ chosen" in text
    assert "✓ chosen b – 81.2 % – needs text" in text


def test_seventy_seven_classes_are_quick_and_small() -> None:
    names = [f"intent_number_{i:02d}_of_many" for i in range(77)]
    card = make_card(names, n=3080)
    card["test"] = {"source": "test.csv", "assessment": assessment(names, 3080, seed=1)}
    render(make_card())
    start = time.perf_counter()
    text = render(card)
    assert time.perf_counter() - start < 1
    assert len(text.encode()) < 2_000_000
    page = Page(text)
    assert "The 12 classes found least often" in page.text
    assert "The other 65 classes" in page.text
    assert "The whole confusion matrix, 77 × 77" in page.text


def test_a_thousand_classes_have_no_matrix() -> None:
    names = [f"c{i:04d}" for i in range(1000)]
    card = make_card(names, n=2000)
    text = render(card)
    assert "With 1000 classes the matrix is too large to read" in Page(text).text
    assert len(text.encode()) < 2_000_000


def test_the_same_card_gives_the_same_page_and_stays_as_it_was() -> None:
    card = make_card()
    before = copy.deepcopy(card)
    assert render(card, date=DATE) == render(json.loads(json.dumps(card)), date=DATE)
    assert card == before


def test_the_page_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "new" / "report.html"
    write_report(make_card(), path, date=DATE)
    before = path.read_bytes()
    assert before.decode() == render(make_card(), date=DATE)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(HandfulError, match=r"cannot write .*report\.html: No space left"):
        write_report(make_card(seed=8), path)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]


@pytest.mark.parametrize(
    ("value", "low", "high", "text"),
    [
        (0.824, 0.781, 0.86, "82 % [78, 86]"),
        (0.824, 0.81, 0.838, "82.4 % [81.0, 83.8]"),
        (0.0, 0.0, 0.31, "0 % [0, 31]"),
        (1.0, 0.988, 1.0, "100 % [99, 100]"),
        (0.996, 0.9, 1.0, "99.6 % [90.0, 100.0]"),
        (0.9996, 0.999, 1.0, "99.96 % [99.90, 100.00]"),
    ],
)
def test_per_cent_bear_the_digits_their_interval_allows(value: float, low: float, high: float, text: str) -> None:
    shown = share({"value": value, "low": low, "high": high})
    assert shown is not None
    assert f"{shown.value} {shown.interval}" == text


def test_an_estimate_that_is_no_number_is_not_shown() -> None:
    assert share(None) is None
    assert share({"value": float("nan"), "low": 0.0, "high": 1.0}) is None
    assert amount({"value": 1.0, "low": 0.5, "high": float("inf")}, 2.0) is None


def test_visible_keeps_scripts_and_emoji() -> None:
    for text in ("Größe 退款 धनवापसी", "می\u200cخواهم", "👩\u200d🚀 ❤\ufe0f"):
        assert visible(text) == text
    assert visible("a\tb\u2028c\ufeff") == "a⟨U+0009⟩b⟨U+2028⟩c⟨U+FEFF⟩"
    assert visible("x" * 1000) == "x" * 400 + "… (600 more characters)"


def test_plain_values() -> None:
    assert [plain(v) for v in (None, True, 0.123456, [1, "a"], {}, {"a": None})] == [
        "–",
        "yes",
        "0.1235",
        "1, a",
        "–",
        "a: –",
    ]
