"""The list of papers: complete, free of contradictions, and true about what works."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from handful.errors import BadInput, HandfulError
from handful.papers import Paper, Part, bibtex, paper, papers, refuse_twins
from handful.papers.rows import parse

SRC = Path(__file__).parents[2] / "src" / "handful"
SPEC = Path(__file__).parents[3] / "shared" / "spec"
WORKING = [(p, part) for p in papers() for part in p.working]

ROW = """
[[paper]]
number = 300
key = "lift"
title = "Lift & Drop 100%"
year = 2024
room = "adapt"
kind = "method"
{extra}
[[paper.part]]
name = "head"
state = "works"
entry = "json:loads"
"""


def one(extra: str = "", text: str = ROW) -> Paper:
    (made,) = parse(text.replace("{extra}", extra), "here.toml")
    return made


def test_complete() -> None:
    assert {p.number for p in papers()} >= set(range(1, 204))


def test_in_order_and_in_the_file_of_its_room() -> None:
    assert [p.number for p in papers()] == sorted(p.number for p in papers())
    for file in SRC.glob("*/papers.toml"):
        assert {p.room for p in parse(file.read_text(encoding="utf-8"), file.name)} == {file.parent.name}


def test_rooms_of_parts_exist() -> None:
    rooms = {path.parent.name for path in SRC.glob("*/__init__.py")}
    assert {part.room for p in papers() for part in p.parts} <= rooms


@pytest.mark.parametrize(("of", "part"), WORKING, ids=[f"{p.key}-{part.name}" for p, part in WORKING])
def test_what_works_can_be_imported(of: Paper, part: Part) -> None:
    module, _, name = part.entry.partition(":")
    found = getattr(importlib.import_module(module), name)
    assert found.__doc__, f"{part.entry} says nothing of itself"
    needs = getattr(found, "needs", None)
    if needs is not None:
        wanted = {name for name, value in needs.as_dict().items() if value is True}
        assert wanted <= set(of.needs), f"{of.key} needs {sorted(wanted)}; the list says {of.needs}"


def test_the_code_names_its_paper() -> None:
    for p in (p for p in papers() if p.working):
        modules = {importlib.import_module(part.entry.partition(":")[0]) for part in p.working}
        texts = [Path(module.__file__).read_text(encoding="utf-8") for module in modules]
        assert any(f"{p.number:03d}" in text for text in texts), f"no module of paper {p.number} names it"


def test_needs_are_words_of_the_capability_record() -> None:
    from handful.protocols import Needs

    assert {need for p in papers() for need in p.needs} <= set(Needs.__dataclass_fields__)


def test_reasons_are_plain_words() -> None:
    for p in papers():
        assert not re.search(r"\bissue\b|#\d|TODO|session", p.reason, re.IGNORECASE), p


def test_agrees_with_the_sheets() -> None:
    if not SPEC.is_dir():
        pytest.skip("the sheets are not here")
    lines = (SPEC / "INDEX.tsv").read_text(encoding="utf-8").splitlines()[1:]
    for number, room, key, _, sheet, title in (line.split("\t") for line in lines):
        p = paper(number)
        assert (p.room, p.key, f"{p.sheet}.md", p.title) == (room, key, sheet, title)


def test_golden_numbers_come_from_the_commit_in_the_list() -> None:
    files = (Path(__file__).parents[1] / "golden").glob("*.json")
    golden = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    read = {g["repository"]: g["commit"] for g in golden if "commit" in g}
    named = {p.reference.repo: p.reference.commit for p in papers() if p.reference and p.reference.commit}
    assert named and named.items() <= read.items()
    assert not [p for p in papers() if p.reference and p.reference.repo in read and not p.reference.commit]


@pytest.mark.parametrize("name", [92, "92", "092", "prototypes", "protonet"])
def test_found_by_number_key_and_alias(name: str | int) -> None:
    assert paper(name).title == "Prototypical Networks for Few-shot Learning"


@pytest.mark.parametrize("name", ["prototype", "999", "-1", "", "92x"])
def test_unknown_paper(name: str) -> None:
    with pytest.raises(BadInput, match="unknown paper"):
        paper(name)


def test_nearest_is_suggested() -> None:
    with pytest.raises(BadInput, match="did you mean 'matching-networks'"):
        paper("maching-networks")


def test_states() -> None:
    assert one().state == "works"
    planned = ROW.replace('state = "works"\nentry = "json:loads"', 'state = "planned"')
    assert one('reason = "no time"', planned).state == "planned"
    both = ROW + '[[paper.part]]\nname = "rest"\nstate = "planned"\n'
    assert one('reason = "no time"', both).state == "partly"
    assert [part.name for part in one('reason = "no time"', both).working] == ["head"]


def test_absent_fields_stay_absent() -> None:
    made = one()
    assert (made.authors, made.arxiv, made.reference, made.sheet) == ((), None, None, None)
    entry = bibtex(made)
    assert "author" not in entry and "eprint" not in entry


def test_bibtex() -> None:
    entry = bibtex(one('authors = ["Ann B. Öz", "Carl D."]\narxiv = "2401.00001"'))
    assert entry == "\n".join(
        [
            "@misc{lift,",
            "  title         = {{Lift \\& Drop 100\\%}},",
            "  author        = {Ann B. Öz and Carl D.},",
            "  year          = {2024},",
            "  eprint        = {2401.00001},",
            "  archiveprefix = {arXiv},",
            "  url           = {https://arxiv.org/abs/2401.00001},",
            "}",
        ]
    )


def test_bibtex_of_all_is_balanced() -> None:
    for p in papers():
        entry = bibtex(p)
        assert entry.count("{") == entry.count("}") and entry.startswith(f"@misc{{{p.key},")
        assert "^" not in entry.replace(r"\^{}", "")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda t: t.replace("number = 300\n", ""), "at place 1: number is missing"),
        (lambda t: t.replace("300", "0"), "number is a whole number above 0"),
        (lambda t: t.replace("300", "true"), "number is a whole number"),
        (lambda t: t.replace('key = "lift"', 'key = " "'), "key is text"),
        (lambda t: t.replace('key = "lift"', 'key = "17"'), "not a number"),
        (lambda t: t.replace('kind = "method"', 'kind = "metod"'), "kind 'metod' is made of: method"),
        (lambda t: t.replace('"works"', '"done"'), "'head': state is 'works' or 'planned', not 'done'"),
        (lambda t: t.replace("json:loads", "json.loads"), "entry 'module:attribute', not 'json.loads'"),
        (lambda t: t.replace('entry = "json:loads"', ""), "entry 'module:attribute', not None"),
        (lambda t: t.replace("{extra}", 'reason = "why"'), "a reason stands exactly"),
        (lambda t: t.replace("{extra}", 'autors = ["A"]'), "unknown field 'autors'; did you mean 'authors'"),
        (lambda t: t.replace("{extra}", 'authors = "A"'), "authors is a list of texts"),
        (lambda t: t.replace("{extra}", 'arxiv = "math/0211159"'), "is not like 1703.05175"),
        (lambda t: t.replace("{extra}", 'arxiv = "2313.00001"'), "is not like 1703.05175"),
        (lambda t: t.replace("{extra}", 'arxiv = "2301.00001"'), "year 2024 is not that of arXiv"),
        (lambda t: t.replace("{extra}", 'reference = { repository = "a/b" }'), "reference: unknown field"),
        (lambda t: t + '[[paper.part]]\nname = "head"\nstate = "works"\nentry = "a:b"\n', "same name"),
        (lambda t: t.split("[[paper.part]]")[0], "has no [[paper.part]]"),
        (lambda t: t + "\n[[papers]]\n", "unknown field 'papers'; did you mean 'paper'"),
        (lambda t: t + "number = [", "here.toml: "),
    ],
)
def test_mistakes_are_named(change: Callable[[str], str], complaint: str) -> None:
    with pytest.raises(HandfulError) as error:
        parse(change(ROW).replace("{extra}", ""), "here.toml")
    assert complaint in str(error.value) and "here.toml" in str(error.value) and "\n" not in str(error.value)


def test_twins_are_refused() -> None:
    other = one('aliases = ["raise"]', ROW.replace("300", "301").replace('"lift"', '"hoist"'))
    refuse_twins([one(), other])
    with pytest.raises(HandfulError, match="papers 300 and 301 share the name 'raise'"):
        refuse_twins([one('aliases = ["raise"]'), other])
    with pytest.raises(HandfulError, match="share the name '300'"):
        refuse_twins([one(), one("", ROW.replace('"lift"', '"hoist"'))])


def test_another_package_joins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "hoists"
    home.mkdir()
    (home / "__init__.py").write_text("", encoding="utf-8")
    (home / "papers.toml").write_text(ROW.replace("{extra}", ""), encoding="utf-8")
    info = tmp_path / "hoists-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: hoists\nVersion: 1\n", encoding="utf-8")
    (info / "entry_points.txt").write_text("[handful.papers]\nhoists = hoists\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    papers.cache_clear()
    try:
        assert paper("lift").number == 300
        assert len(papers()) == 204
    finally:
        papers.cache_clear()
