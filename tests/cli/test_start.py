"""The command line starts fast, and without what it does not need."""

from __future__ import annotations

import subprocess
import sys

import pytest

from handful import __version__

HEAVY = ("torch", "sklearn", "scipy", "polars", "numpy", "transformers", "PIL", "rich")


@pytest.mark.parametrize("args", [["--help"], ["fit", "--help"], ["--version"], ["fit", "--no-such"]])
def test_nothing_heavy_is_imported_to_show_help(args: list[str]) -> None:
    code = f"""
import sys
from handful.cli import main
main({args!r})
loaded = [name for name in {HEAVY!r} if name in sys.modules]
sys.exit(f"imported: {{loaded}}" if loaded else 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_command_has_help(run) -> None:
    commands = [
        "fit",
        "predict",
        "evaluate",
        "audit",
        "forecast",
        "next",
        "grow",
        "compress",
        "inspect",
        "bench",
        "list",
        "cache",
        "demo",
    ]
    overview = run("--help")
    assert overview.status == 0
    for name in commands:
        assert f"  {name} " in overview.out
        page = run(name, "--help")
        assert page.status == 0
        assert f"handful {name}" in page.out


def test_no_arguments_show_the_overview(run) -> None:
    assert "Commands:" in run().out + run().err


def test_version(run) -> None:
    assert run("--version").out == f"handful {__version__}\n"


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["fit", "x.csv", "--shot", "3"], "'--shots'"),
        (["fit", "x.csv", "--zzz"], "no such option: --zzz"),
        (["fits", "x.csv"], "'fit'"),
        (["fit"], "SOURCE"),
        (["fit", "x.csv", "--shots", "three"], "--shots"),
        (["fit", "x.csv", "--shots"], "--shots"),
        (["predict", "only-a-model"], "SOURCE"),
    ],
)
def test_usage_errors_are_one_line_and_2(run, args: list[str], says: str) -> None:
    result = run(*args)
    assert result.status == 2
    assert says in result.complaint
    assert "--help" in result.complaint


@pytest.mark.skipif(sys.platform == "win32", reason="no resource usage of children there")
def test_help_takes_a_third_of_a_second_more_than_bare_python() -> None:
    import resource

    def processor_time(code: str) -> float:
        """Seconds of processor time, which other work on the machine hardly moves."""
        spent = []
        for _ in range(3):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, check=True)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            spent.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
        return min(spent)

    bare = processor_time("pass")
    assert processor_time("from handful.cli import main; main(['--help'])") - bare < 0.3
    assert processor_time("import handful") - bare < 0.3
