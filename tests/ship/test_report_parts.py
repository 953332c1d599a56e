"""What the report says beside the assessment: population, answers, cost, shots, labels, copies, the encoder, origin."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from report_cards import (
    DATE,
    HOSTILE,
    SPELT,
    Page,
    assessment,
    estimate,
    full_card,
    make_card,
    make_examples,
    picture_example,
    strings,
    text_example,
)

from handful.ship.evidence import Evidence, Example
from handful.ship.report import render
from handful.ship.report_findings import findings
from handful.ship.report_quoted import quoted
from handful.ship.report_trust import answers, cost, curve, curve_sentence


@pytest.fixture(scope="module")
def page() -> Page:
    """The page of a card with every part, with texts."""
    card = full_card()
    return Page(render(card, make_examples(card, text_example), date=DATE))


def test_the_parts_come_in_order(page: Page) -> None:
    headings = (
        "Accuracy on new items 84 % [78, 90] Of 100 new items with the classes as often as in shares.csv",
        "In short",
        "Classes, the weakest first",
        "What is taken for what",
        "Can its confidence be trusted?",
        "If it answers only when it is sure",
        "What its mistakes cost",
        "Would more labels help?",
        "Labels that look wrong",
        "Duplicates and conflicts",
        "What the encoder cannot see",
        "How it was made",
        "What was tried",
        "Provenance",
    )
    places = [page.text.index(heading) for heading in headings]
    assert places == sorted(places)


def test_the_first_sentence_names_number_and_population(page: Page) -> None:
    first = page.part("Accuracy on new items").split("] ", 1)[1].split(". ")[0]
    assert first == (
        "Of 100 new items with the classes as often as in shares.csv, on average 78 to 90 get the right label"
    )


def test_the_quoted_accuracy_is_not_the_counted_one(page: Page) -> None:
    counted = full_card()["estimate"]["assessment"]["accuracy"]
    assert "Accuracy on new items 84 % [78, 90]" in page.text
    shown = "{:.0f} % [{:.0f}, {:.0f}]".format(*(100 * counted[key] for key in ("value", "low", "high")))
    assert f"Counted in the folds themselves, where the model learns from fewer examples: {shown}." in page.text
    assert "rests on 57 groups ('customer' and near-duplicates), the largest with 3 items." in page.text


def test_another_metric_leaves_the_quoted_accuracy_among_the_measures() -> None:
    text = Page(render(full_card(metric="macro-f1"), date=DATE)).text
    assert "Macro-F1 on new items" in text
    assert "Accuracy 84 % [78, 90]" in text
    assert "For new items with the classes as often as in shares.csv, macro-F1 is" in text


def test_what_is_said_in_short_leads_to_its_part(page: Page) -> None:
    for anchor, sentence in (
        ("answers", "it answers where it is at least 0.62 sure: that is 71 % [65, 77] of items, and 95 % [92, 98]"),
        ("cost", "Deciding by cost, an item costs 0.31 on average, instead of 0.44 for the most probable class."),
        ("curve", "From 10 to 20 examples a class accuracy rose by 4.9 points, from 79.1 to 84.0 %."),
        ("doubts", "2 of 60 labels look wrong."),
        ("copies", "60 examples, but only 57 different ones; 1 set of copies with different labels."),
        ("blind", "14 texts are longer than the encoder reads; --long mean reads all."),
        ("provenance", "1 item could not be used."),
    ):
        assert sentence in page.text
        assert {"href": f"#{anchor}"} in page.all("a")
        assert any(attrs.get("id") == anchor for _, attrs in page.tags)


def test_nothing_is_said_where_nothing_is_known() -> None:
    assert findings({}, None) == []
    assert "In short" not in render({}, date=DATE)
    card = full_card(selective=None, cost=None, shots_curve=[], suspicious=[], duplicates=None, blind_spots=[])
    text = Page(render(card, date=DATE)).text
    for heading in ("answers only", "mistakes cost", "more labels", "look wrong", "Duplicates", "encoder cannot"):
        assert heading not in text


def test_confused_pairs_show_their_texts(page: Page) -> None:
    pairs = full_card()["estimate"]["assessment"]["confused"]
    for i, pair in enumerate(pairs[:8]):
        first = page.part(f"{pair['true']} taken for {pair['predicted']}")
        items = "item" if pair["n"] == 1 else "items"
        assert f"{pair['n']} {items}" in first[:120]
        texts = [first.index(f"Text of row {100 + 3 * i + j}, about a payment") for j in range(3)]
        assert texts == sorted(texts)


def test_pictures_are_part_of_the_page() -> None:
    card = full_card()
    page = Page(render(card, make_examples(card, picture_example), date=DATE))
    sources = [attrs["src"] or "" for attrs in page.all("img")]
    assert len(sources) >= 3
    assert all(re.fullmatch(r"data:image/png;base64,[A-Za-z0-9+/=]+", source) for source in sources)
    assert all(attrs["alt"] for attrs in page.all("img"))


def test_what_is_no_picture_is_not_shown() -> None:
    card = full_card()
    for data in (b"<svg onload=alert(1)>", b"", b"GIF89a", b"\x89PNG\r\n\x1a\n" + bytes(300_000)):
        evidence = make_examples(card, lambda row, data=data: Example(f"{row}", thumbnail=data))  # type: ignore[misc]
        assert not Page(render(card, evidence, date=DATE)).all("img")


def test_a_measured_test_shows_its_own_items() -> None:
    names = ["double_charge", "invoice", "refund"]
    found = assessment(names, 90, seed=3)
    card = full_card(test={"source": "held.csv", "assessment": found})
    learnt = make_examples(card, text_example)
    assert "Text of row 100" in render(card, learnt, date=DATE)
    pair = found["confused"][0]
    tested = {(pair["true"], pair["predicted"]): [Example("held.csv row 3", "Of the test")]}
    first, again = render(card, replace(learnt, tested=tested), date=DATE).split("The same by resampling")
    assert "Of the test" in first and "Text of row 100" not in first
    assert "Text of row 100" in again and "Of the test" not in again


def test_without_examples_the_pairs_are_a_table() -> None:
    card = full_card()
    page = Page(render(card, date=DATE))
    assert "True class Taken for Items Share of the true class" in page.text
    assert "tickets.csv row 5" in page.text  # places stay
    assert "Text of row" not in page.text


def test_examples_of_other_pairs_and_rows_are_no_harm() -> None:
    card = full_card()
    evidence = Evidence({("no", "such"): [1], ("refund", "invoice"): [10**9]}, {1: Example("elsewhere", "unseen")})
    assert "unseen" not in render(card, evidence, date=DATE)


def test_the_table_of_answers_holds_the_chosen_threshold(page: Page) -> None:
    table = page.part("Confidence at least")
    assert "0.50 80 % [75, 85] 92 % [87, 97] 48 0.62 chosen 71 % [65, 77] 95 % [92, 98] – 0.80 50 % [45, 55]" in table


@pytest.mark.parametrize(
    ("selective", "sentence"),
    [
        ({"target": 0.99, "threshold": None, "note": "at most 96 %"}, "A precision of 99 % is not within reach."),
        ({"target": None, "table": [{"threshold": 0.5, "coverage": None}]}, ""),
        (
            {"target": None, "table": full_card()["selective"]["table"]},
            "Of the surest 80 % of its answers, 92 % [87, 97] are right.",
        ),
        ({"target": 0.9, "threshold": 0.5, "coverage": None}, "For a precision of 90 % it answers where it is at"),
    ],
)
def test_answers_say_what_the_target_comes_to(selective: dict[str, object], sentence: str) -> None:
    found = answers(selective)
    if found is None:
        assert not selective.get("table") and not selective.get("note")
        return
    assert found.sentence.startswith(sentence)
    text = Page(render(make_card(selective=selective), date=DATE)).text
    assert "If it answers only when it is sure" in text
    assert found.note.capitalize() in text


def test_thresholds_that_lie_close_show_three_digits() -> None:
    rows = [{"threshold": t, "coverage": estimate(0.9), "precision": estimate(0.9)} for t in (0.991, 0.994, 0.5)]
    found = answers({"table": rows})
    assert found is not None
    assert [step.threshold for step in found.steps] == ["0.500", "0.991", "0.994"]
    rows[1]["threshold"] = 0.9997
    assert [step.threshold for step in answers({"table": rows}).steps] == ["0.5000", "0.9910", "0.9997"]  # type: ignore[union-attr]


def test_costs_of_many_classes_are_not_printed() -> None:
    names = [f"c{i:02d}" for i in range(13)]
    assert cost(full_card(names)).matrix == ()  # type: ignore[union-attr]
    small = cost(full_card())
    assert small is not None
    assert small.matrix[0] == ("double_charge", ("0", "5", "5"))
    assert cost(make_card()) is None


def test_the_curve_is_drawn_within_its_frame() -> None:
    drawn = curve(full_card()["shots_curve"])
    assert drawn is not None
    assert [p.shots for p in drawn.points] == [1, 2, 5, 10, 20]
    xs, ys = [p.x for p in drawn.points], [p.y for p in drawn.points]
    assert xs == sorted(xs) and ys == sorted(ys, reverse=True)
    assert all(40 <= p.x <= 328 and 12 <= p.top <= p.y <= p.bottom <= 200 for p in drawn.points)
    assert drawn.path.count("L") == 4
    assert [float(text) for _, text in drawn.ticks] == [40, 50, 60, 70, 80, 90]


@pytest.mark.parametrize("points", [None, [], [(8, 0.5)], [(8, 0.5), (8, 0.6)], [(0, 0.5), (8, 0.6)]])
def test_a_curve_needs_two_points(points: list[tuple[int, float]] | None) -> None:
    made = points and [{"shots": s, "n": s, "accuracy": estimate(a)} for s, a in points]
    assert curve(made) is None


def test_a_flat_curve_and_a_falling_one_are_said_to_be_so() -> None:
    def of(*values: float) -> str:
        return curve_sentence([{"shots": i, "accuracy": estimate(v)} for i, v in enumerate(values, start=1)])

    assert of(0.8, 0.8) == "From 1 to 2 examples a class accuracy stayed, at 80.0 %."
    assert of(0.9, 0.8, 0.75) == "From 2 to 3 examples a class accuracy fell by 5.0 points, from 80.0 to 75.0 %."
    drawn = curve([{"shots": s, "accuracy": estimate(1.0, 0.0)} for s in (1, 1000)])
    assert drawn is not None
    assert drawn.marks == ((328.0, "1,000"), (40.0, "1"))


def test_doubtful_labels_and_conflicts_show_their_items(page: Page) -> None:
    doubts = page.part("Labels that look wrong")
    assert "Text of row 5, about a payment tickets.csv row 5 double_charge (2 %) refund (93 %)" in doubts
    copies = page.part("Duplicates and conflicts")
    assert "60 examples, but only 57 different ones: 3 repeat another, or nearly so. Copies never stand" in copies
    expected = "Text of row 12, about a payment tickets.csv row 12: double_charge tickets.csv row 40: refund"
    assert expected in copies


def test_many_of_a_kind_are_cut_and_counted() -> None:
    card = full_card()
    card["suspicious"] *= 40
    card["duplicates"]["conflicts"] *= 15
    card["duplicates"]["conflicts"][0] = {"where": ["x"] * 9, "labels": ["a", "b"] * 4 + ["a"], "rows": [1] * 9}
    text = Page(render(card, date=DATE)).text
    assert "80 labels disagree" in text
    assert "The 20 most doubtful" in text
    assert "10 of 15" in text
    assert "and 5 more" in text


def test_blind_spots_say_how_many_and_where(page: Page) -> None:
    part = page.part("What the encoder cannot see")
    assert "14 of 60 (23 %) 14 texts are longer than the encoder reads; --long mean reads all" in part
    assert "tickets.csv row 4 and 9 more" in part


def test_provenance_names_date_command_and_versions(page: Page) -> None:
    part = page.part("Provenance")
    for words in ("Written 2026-03-14 15:09 UTC", "handful fit tickets.csv", "python 3.11.9, torch 2.9.1"):
        assert words in part
    assert "With the classes as often as in shares.csv, from shares.csv" in page.text


def test_a_measured_test_keeps_its_note_and_is_quoted_as_measured() -> None:
    names = ["double_charge", "invoice", "refund"]
    measured = {"source": "held.csv", "assessment": assessment(names, 90), "note": "3 items equal one learnt from"}
    card = full_card(test=measured)
    assert [q.measured for q in quoted(card)] == [True, False]
    text = Page(render(card, date=DATE)).text
    assert "it never learnt from. 3 items equal one learnt from." in text
    assert "estimated by 5 stratified folds over 60 labelled items: 84 % [78, 90]" in text


def test_hostile_text_is_spelt_out_in_every_part() -> None:
    card = full_card(test={"source": "t", "note": "n", "assessment": assessment(["a", "b", "c"], 60)})
    card["selective"]["note"] = "n"
    allowed = {tag for tag, _ in Page(render(card, make_examples(card, text_example), date=DATE)).tags} | {"ol"}
    hostile = strings(card, HOSTILE) | {"metric": "accuracy"}
    evidence = make_examples(hostile, lambda row: Example(HOSTILE, HOSTILE))
    text = render(hostile, evidence, date=DATE)
    page = Page(text)
    assert {tag for tag, _ in page.tags} <= allowed
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b\u202a-\u202e\u2066-\u2069\ud800-\udfff]", text)
    for part in ("What is taken for what", "Labels that look wrong", "Duplicates and", "encoder cannot", "Provenance"):
        assert SPELT in page.part(part), part


def test_a_long_name_is_cut_where_it_stands_in_a_table() -> None:
    text = Page(render(full_card(["a" * 5000, "b" * 300, "c"]), date=DATE)).text
    assert "a" * 401 not in text
    assert f"{'a' * 160}… (4,840 more characters)" in text
