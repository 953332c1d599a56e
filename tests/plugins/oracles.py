"""The collector that keeps the list of papers true.

An oracle test carries ``@pytest.mark.paper(42, oracle="a")``: the number of the paper and the letter of the oracle in
the paper's sheet (oracles counted (1), (2) … or written as bullets are lettered in order). At the end of a full run
every working part of every paper must have passed two different oracles, at least one of them without the shared data.
A mark speaks for every working part of its paper, or for one: ``part="transform"``.

`OracleCollector` takes what it compares as arguments, so that it can be tested itself.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

MARK = "paper(number, oracle, part=None): an oracle test of a paper: its number, the letter of the oracle in its sheet"
PROPERTY = "handful-oracle"
NEEDED = 2
FULL_MARKEXPR = ("", "not slow")


class OracleCollector:
    """Pytest plugin: checks the ``paper`` marks at collection and counts the oracles that passed.

    Args:
        works: names of the working parts by paper number; papers without one may be left out.
        known: numbers of all papers.
        letters: oracle letters by paper number, or empty where the sheets are not at hand.
        full: whether the run is a full one; ``None`` decides by how pytest was called.
    """

    def __init__(
        self,
        works: Mapping[int, tuple[str, ...]],
        known: Iterable[int],
        letters: Mapping[int, frozenset[str]],
        full: bool | None = None,
    ) -> None:
        self._works = works
        self._known = frozenset(known)
        self._letters = letters
        self._full = full
        self._passed: dict[tuple[int, str], dict[str, bool]] = defaultdict(dict)
        self._failed: set[tuple[int, str, str]] = set()

    def pytest_itemcollected(self, item: pytest.Item) -> None:
        """Check the marks and hang them on the item, from where they travel inside the reports of every worker."""
        for mark in item.iter_markers("paper"):
            number, oracle, parts = self._read(mark, item.nodeid)
            alone = "shared_data" not in getattr(item, "fixturenames", ())
            for part in parts:
                item.user_properties.append((PROPERTY, [number, oracle, part, alone]))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note what passed and what failed; on the controller when there are workers."""
        for name, value in report.user_properties:
            if name != PROPERTY:
                continue
            number, oracle, part, alone = value
            if report.failed:
                self._failed.add((number, part, oracle))
            elif report.when == "call" and report.passed:
                before = self._passed[number, part].get(oracle, False)
                self._passed[number, part][oracle] = before or alone

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Fail a full run that leaves a working part without its oracles."""
        if hasattr(session.config, "workerinput") or not self._is_full(session):
            return
        self.complaints = self._judge()
        if self.complaints and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_unconfigure(self, config: pytest.Config) -> None:
        """Say which parts are not proved, after all else: a summary of passed tests must not hide why a run failed."""
        for line in getattr(self, "complaints", []):
            config.get_terminal_writer().line(f"ORACLES {line}", red=True)

    def _read(self, mark: pytest.Mark, nodeid: str) -> tuple[int, str, tuple[str, ...]]:
        """Number, oracle and parts of a mark; a mark that names nothing known is an error of collection."""

        def refuse(why: str) -> pytest.UsageError:
            return pytest.UsageError(f"{nodeid}: paper mark {mark.args} {mark.kwargs}: {why}")

        if len(mark.args) != 1 or not set(mark.kwargs) <= {"oracle", "part"} or "oracle" not in mark.kwargs:
            raise refuse('write it as paper(42, oracle="a")')
        number, oracle, part = mark.args[0], mark.kwargs["oracle"], mark.kwargs.get("part")
        if number not in self._known:
            raise refuse("there is no such paper in the list")
        if number in self._letters and oracle not in self._letters[number]:
            raise refuse(f"its sheet has the oracles {', '.join(sorted(self._letters[number]))}")
        parts = self._works.get(number, ())
        if part is not None and parts and part not in parts:
            raise refuse(f"the parts of it that work are: {', '.join(parts)}")
        return number, oracle, (part,) if part else parts

    def _is_full(self, session: pytest.Session) -> bool:
        """Whether nothing was selected, deselected beyond the slow tests, or cut short."""
        if self._full is not None:
            return self._full
        option = session.config.option
        whole = session.config.args_source is not pytest.Config.ArgsSource.ARGS
        narrowed = option.keyword or option.markexpr not in FULL_MARKEXPR or option.collectonly
        narrowed = narrowed or getattr(option, "lf", False) or getattr(option, "deselect", None)
        cut = session.shouldstop or session.shouldfail or session.exitstatus == pytest.ExitCode.INTERRUPTED
        return whole and not narrowed and not cut

    def _judge(self) -> list[str]:
        """One line for every working part that lacks oracles."""
        lines = []
        for number, parts in sorted(self._works.items()):
            for part in parts:
                found = self._passed.get((number, part), {})
                good = {o: alone for o, alone in found.items() if (number, part, o) not in self._failed}
                what = f"paper {number:03d}, part {part!r} is said to work"
                if len(good) < NEEDED:
                    names = ", ".join(sorted(good)) or "none"
                    lines.append(f"{what}: {NEEDED} different oracles must pass, {len(good)} did ({names})")
                elif not any(good.values()):
                    lines.append(f"{what}: none of its oracles passed without the shared data")
        return lines


def sheet_oracles(folder: Path) -> dict[int, frozenset[str]]:
    """Letters of the oracles of every paper, read from the sheets in ``folder``; empty when there is no such folder."""
    if not folder.is_dir():
        return {}
    letters = {}
    for sheet in sorted(folder.glob("*.md")):
        for section in re.split(r"(?m)^#{2,3} (?=\d{3} )", sheet.read_text(encoding="utf-8"))[1:]:
            oracle = re.search(r"(?ms)^- \*\*Oracle:\*\*(.*?)(?=^- \*\*|\Z)", section)
            if oracle:
                letters[int(section[:3])] = _letters(oracle[1])
    return letters


def _letters(text: str) -> frozenset[str]:
    """``(a) … (b) …``, ``(1) … (2) …`` or bullets, in order, as letters from ``a`` on."""
    alphabet = "abcdefghijklmnopqrstuvwxyz"
    for names in (alphabet, [str(i) for i in range(1, 27)]):
        count = position = 0
        while count < 26 and (position := text.find(f"({names[count]})", position)) >= 0:
            count += 1
        if count >= NEEDED:
            return frozenset(alphabet[:count])
    return frozenset(alphabet[: max(len(re.findall(r"(?m)^\s*- ", text)), NEEDED)])
