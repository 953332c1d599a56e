"""The collector of oracles, run on small suites of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from oracles import OracleCollector, sheet_oracles

PLUGINS = Path(__file__).parents[1] / "plugins"
GOOD = """
    import pytest

    @pytest.mark.paper(7, oracle="a")
    def test_a(): pass

    @pytest.mark.paper(7, oracle="b")
    def test_b(shared_data): pass
"""
CONFTEST = f"""
    import sys
    sys.path.insert(0, {str(PLUGINS)!r})
    import pytest
    from oracles import MARK, OracleCollector

    @pytest.fixture
    def shared_data():
        return "data"

    def pytest_configure(config):
        config.addinivalue_line("markers", MARK)
        config.addinivalue_line("markers", "slow: slow")
        config.pluginmanager.register(OracleCollector(WORKS, range(1, 10), LETTERS))
"""


def suite(pytester: pytest.Pytester, tests: str, works: str = "{7: ('head',)}", letters: str = "{7: 'abc'}") -> None:
    pytester.makeconftest(CONFTEST.replace("WORKS", works).replace("LETTERS", letters))
    pytester.makepyfile(tests)
    pytester.makeini("[pytest]\naddopts = --strict-markers -p no:cacheprovider")


@pytest.fixture(autouse=True)
def few_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    """The small suites start without the plugins installed here."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")


def run(pytester: pytest.Pytester, *args: str) -> pytest.RunResult:
    return pytester.runpytest_inprocess(*args)


def test_two_oracles_are_enough(pytester: pytest.Pytester) -> None:
    suite(pytester, GOOD)
    result = run(pytester)
    assert result.ret == 0
    result.stdout.no_fnmatch_line("ORACLES*")


def test_with_workers(pytester: pytest.Pytester) -> None:
    suite(pytester, GOOD)
    assert pytester.runpytest_subprocess("-p", "xdist", "-n2").ret == 0
    suite(pytester, GOOD.replace('oracle="b"', 'oracle="a"'))
    result = pytester.runpytest_subprocess("-p", "xdist", "-n2")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["ORACLES paper 007, part 'head'*2 different oracles must pass, 1 did (a)"])


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ('oracle="b"', 'oracle="a"', "2 different oracles must pass, 1 did (a)"),
        ("test_a(): pass", "test_a(): pytest.skip()", "2 different oracles must pass, 1 did (b)"),
        ("test_a(): pass", "test_a(shared_data): pass", "none of its oracles passed without the shared data"),
        ("test_a", "check_a", "2 different oracles must pass, 1 did (b)"),
    ],
)
def test_too_little_fails(pytester: pytest.Pytester, old: str, new: str, complaint: str) -> None:
    suite(pytester, GOOD.replace(old, new))
    result = run(pytester)
    assert result.ret == 1
    result.stdout.fnmatch_lines([f"ORACLES paper 007, part 'head' is said to work: {complaint}"])


def test_an_oracle_that_fails_once_does_not_count(pytester: pytest.Pytester) -> None:
    parametrized = '@pytest.mark.parametrize("x", [0, 1])\n    @pytest.mark.paper(7, oracle="a")'
    tests = GOOD.replace('@pytest.mark.paper(7, oracle="a")', parametrized).replace(
        "test_a(): pass", "test_a(x): assert x"
    )
    suite(pytester, tests)
    result = run(pytester)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["ORACLES*1 did (b)"])


def test_no_oracles_at_all(pytester: pytest.Pytester) -> None:
    suite(pytester, "def test_other(): pass", works="{7: ('head',), 8: ()}")
    result = run(pytester)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["ORACLES paper 007*0 did (none)"])
    result.stdout.no_fnmatch_line("ORACLES paper 008*")


@pytest.mark.parametrize("args", [("-k", "test_a"), ("-m", "slow"), ("{file}",), ("--collect-only",)])
def test_a_selected_run_is_not_judged(pytester: pytest.Pytester, args: tuple[str, ...]) -> None:
    suite(pytester, GOOD.replace('oracle="b"', 'oracle="a"') + "\n    @pytest.mark.slow\n    def test_s(): pass")
    file = next(pytester.path.glob("test_*.py")).name
    result = run(pytester, *(arg.format(file=file) for arg in args))
    assert result.ret == 0
    result.stdout.no_fnmatch_line("ORACLES*")


def test_the_quick_run_is_judged(pytester: pytest.Pytester) -> None:
    suite(pytester, GOOD.replace('oracle="b"', 'oracle="a"'))
    assert run(pytester, "-m", "not slow").ret == 1


def test_a_run_cut_short_is_not_judged(pytester: pytest.Pytester) -> None:
    suite(pytester, GOOD.replace("test_a(): pass", "test_a(): assert False"))
    result = run(pytester, "-x")
    assert result.ret == 1
    result.stdout.no_fnmatch_line("ORACLES*")


def test_parts(pytester: pytest.Pytester) -> None:
    suite(pytester, GOOD, works="{7: ('head', 'view')}")
    assert run(pytester).ret == 0
    suite(pytester, GOOD.replace('oracle="b"', 'oracle="b", part="head"'), works="{7: ('head', 'view')}")
    result = run(pytester)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["ORACLES paper 007, part 'view'*1 did (a)"])
    result.stdout.no_fnmatch_line("ORACLES*'head'*")


@pytest.mark.parametrize(
    ("mark", "complaint"),
    [
        ('42, oracle="a"', "no such paper"),
        ('"7", oracle="a"', "no such paper"),
        ('7, oracle="z"', "its sheet has the oracles a, b, c"),
        ("7", "write it as"),
        ('7, "a"', "write it as"),
        ('7, oracle="a", letter="b"', "write it as"),
        ('7, oracle="a", part="tail"', "parts of it that work are: head"),
    ],
)
def test_wrong_marks_stop_the_run(pytester: pytest.Pytester, mark: str, complaint: str) -> None:
    suite(pytester, GOOD.replace('7, oracle="a"', mark))
    result = run(pytester)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert complaint in result.stderr.str() + result.stdout.str()


def test_letters_are_not_checked_without_sheets(pytester: pytest.Pytester) -> None:
    suite(pytester, GOOD.replace('oracle="a"', 'oracle="z"'), letters="{}")
    assert run(pytester).ret == 0


def test_letters_of_a_sheet(tmp_path: Path) -> None:
    (tmp_path / "one.md").write_text(
        "# Sheet\n\n### 001 First\n- **Oracle:** (a) this, where f(x) = 1. (b) that; see (a). (c) more.\n"
        "- **Headline:** (d)\n"
        "\n## 002 Second\n- **Oracle:** (1) this [3 x 4] (2) that (3) more\n"
        "\n### 003 Third\n- **Oracle:** - this\n  - that\n  - more\n- **Bad input:** (1) (2)\n"
        "\n### Notes\n- **Oracle:** (a) (b)\n",
        encoding="utf-8",
    )
    letters = {number: "".join(sorted(found)) for number, found in sheet_oracles(tmp_path).items()}
    assert letters == {1: "abc", 2: "abc", 3: "abc"}
    assert sheet_oracles(tmp_path / "nowhere") == {}


def test_this_run_is_watched(pytestconfig: pytest.Config) -> None:
    assert isinstance(pytestconfig.pluginmanager.get_plugin("handful-oracles"), OracleCollector)
