"""The summary says what the report says, in a few lines, and lets no text from data act."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

import pytest
from report_cards import HOSTILE, assessment, full_card, make_card, strings
from rich.text import Text

from handful.cli import show_trust
from handful.cli.layout import facts
from handful.cli.show_fit import decisions, trust
from handful.cli.terminal import show
from handful.evaluate.generalised import Generalised


def plain(lines: Sequence[str | Text]) -> str:
    """Lines as they print, one after the other."""
    return "\n".join(map(str, lines))


def summary(card: dict[str, object], capsys: pytest.CaptureFixture[str]) -> str:
    """What `handful fit` prints of trust and decisions."""
    show(facts([*trust(card), *decisions(card)]))
    return capsys.readouterr().out


def test_the_quoted_number_comes_first_with_its_population(capsys: pytest.CaptureFixture[str]) -> None:
    first, second, *_ = summary(full_card(), capsys).splitlines()
    assert first == "Accuracy  84.0 %, 95 % interval 78.0 to 90.0"
    assert second.strip() == (
        "on new items with the classes as often as in shares.csv, estimated by 5 stratified folds over 60 labelled "
        "items; it rests on 57 groups: 'customer' and near-duplicates"
    )


def test_every_part_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    out = summary(full_card(), capsys)
    for line in (
        "Answers   71.0 % [65.0, 77.0] of items, where it is at least 0.62 sure",
        "95.0 % [92.0, 98.0] of these are right; asked for 95 %",
        "other for 72.0 % [64.0, 80.0] of items of none of the classes,",
        "and for 4.0 % [1.0, 7.0] of items of the classes; asked for 5 %",
        "0.31 an item, 95 % interval 0.25 to 0.39; the most probable class would cost 0.44",
        "accuracy by examples a class, in %: 1: 55.0, 2: 66.0, 5: 74.0, 10: 79.1, 20: 84.0",
        "2 labels look wrong:",
        "  tickets.csv row 5: double_charge, more like refund (93 %)",
        "3 examples repeat another, or nearly so",
        "1 set of copies with different labels:",
        "  tickets.csv row 12, tickets.csv row 40: double_charge, refund",
        "14 texts are longer than the encoder reads; --long mean reads all",
    ):
        assert line in out, line


def test_a_card_without_the_new_parts_is_told_as_before(capsys: pytest.CaptureFixture[str]) -> None:
    out = summary(make_card(), capsys)
    assert "on new items, estimated by 5 stratified folds" in out
    assert {line.split("  ")[0] for line in out.splitlines()} == {"Accuracy", ""}


def test_a_test_comes_before_the_estimate_and_keeps_its_note(capsys: pytest.CaptureFixture[str]) -> None:
    found = assessment(["double_charge", "invoice", "refund"], 90)
    out = summary(full_card(test={"source": "t.csv", "note": "3 items equal", "assessment": found}), capsys)
    assert "measured on 90 items: t.csv (3 items equal)" in out
    assert "Estimate  84.0 %, 95 % interval 78.0 to 90.0" in out


def test_without_a_target_the_surest_answers_are_told() -> None:
    selective = full_card()["selective"] | {"target": None, "threshold": None}
    assert plain(show_trust.answers(selective)) == "right: 92 % of the surest 80 %, 97 % of the surest 50 %"
    assert show_trust.answers(None) == []


def test_a_target_out_of_reach_is_said_to_be_so() -> None:
    selective = {"target": 0.99, "threshold": None, "table": [], "note": "no threshold reaches 99 %; the best is 96 %"}
    assert plain(show_trust.answers(selective)) == "no threshold reaches 99 %; the best is 96 %"


def test_long_lists_are_cut() -> None:
    card = full_card()
    card["suspicious"] *= 10
    lines = plain(show_trust.labels(card)).splitlines()
    assert lines[0] == "20 labels look wrong:"
    assert lines[4] == "  and 17 more, in the report"


def test_verdicts_stand_out(capsys: pytest.CaptureFixture[str]) -> None:
    line = show_trust.verdict(False, "FAIL recall[\x1b[31m]>=0.9: \u202e")
    assert str(line) == "FAIL recall[\\x1b[31m]>=0.9: \\u202e"
    assert [str(span.style) for span in line.spans] == ["red"]
    from handful.cli.show_assessment import show_assessment

    found = assessment(["a", "b"], 20)
    verdicts = (SimpleNamespace(passed=True, sentence="PASS accuracy>=0.5: the accuracy is at least 60 %"),)
    given = SimpleNamespace(as_dict=lambda: found, verdicts=verdicts, generalised=Generalised(0.5, 0.8, 0.615))
    show_assessment(given)  # type: ignore[arg-type]
    out = " ".join(capsys.readouterr().out.split())
    assert "PASS accuracy>=0.5: the accuracy is at least 60 %" in out
    assert "without examples 50.0 %, those with examples 80.0 %, harmonic mean 61.5 %" in out


def test_hostile_text_is_harmless_in_every_part(capsys: pytest.CaptureFixture[str]) -> None:
    found = assessment(["double_charge", "invoice", "refund"], 90)
    card = strings(full_card(test={"source": "t", "note": "n", "assessment": found}), HOSTILE)
    card["metric"] = "accuracy"
    out = summary(card, capsys)
    assert out.count("[/refund]\\x1b[31m\\u202egpj.exe\\x00\\u200b\\ud800") > 10
    assert out.replace("\n", "").isprintable()
