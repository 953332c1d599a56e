"""The rules of the house that a machine can check."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import handful

ROOT = Path(__file__).parents[1]
SRC = ROOT / "src" / "handful"
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(SRC.rglob("*.py"))}
HEAVY = ("torch", "sklearn", "polars", "transformers", "scipy", "pandas", "PIL")
MOST_LINES = 400
UNSAFE = {"pickle", "dill", "joblib", "shelve", "marshal"}
GLOBAL_SEED = re.compile(
    r"(np|numpy)\.random\.(?!default_rng$|Generator$|SeedSequence$)\w+|torch\.manual_seed|random\.seed"
)


def where(path: Path, node: ast.AST) -> str:
    return f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 1)}"


def nodes(*kinds: type[ast.AST]) -> Iterator[tuple[Path, Any]]:
    """Every node of these kinds in the package, with its file."""
    return ((path, node) for path, tree in TREES.items() for node in ast.walk(tree) if isinstance(node, kinds))


def calls() -> Iterator[tuple[str, str, ast.Call, dict[str | None, str]]]:
    """Every call: its place, the dotted name that is called, and its keywords as source."""
    for path, call in nodes(ast.Call):
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        yield where(path, call), ast.unparse(call.func), call, given


def test_files_can_be_read_in_one_sitting() -> None:
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in TREES}
    assert not {str(path): n for path, n in lines.items() if n > MOST_LINES}


def test_what_is_public_says_what_it_is() -> None:
    parts = ((path, node) for path, tree in TREES.items() for node in [tree, *tree.body])
    public = (
        (path, node)
        for path, node in parts
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
        and not getattr(node, "name", "").startswith("_")
    )
    assert not [where(path, node) for path, node in public if not ast.get_docstring(node)]


def test_only_the_command_line_prints() -> None:
    places = [place for place, name, *_ in calls() if name in ("print", "sys.stdout.write", "rich.print")]
    assert places
    assert all(place.startswith(str(Path("src/handful/cli"))) for place in places), places


def test_no_option_bags() -> None:
    functions = nodes(ast.FunctionDef, ast.AsyncFunctionDef)
    bags = [where(path, f) for path, f in functions if f.args.kwarg and f.args.kwarg.arg == "kwargs"]
    classes = ((path, c) for path, c in nodes(ast.ClassDef) if not c.name.startswith("_"))
    methods = ((path, f) for path, c in classes for f in c.body if isinstance(f, ast.FunctionDef))
    bags += [where(path, f) for path, f in methods if path.parent.name == "adapt" and f.args.kwarg]
    assert not bags


def test_nothing_is_unpickled() -> None:
    imported = [(where(p, n), alias.name) for p, n in nodes(ast.Import) for alias in n.names]
    imported += [(where(p, n), n.module or "") for p, n in nodes(ast.ImportFrom)]
    assert not [place for place, name in imported if name.split(".")[0] in UNSAFE]
    for place, name, _, given in calls():
        if name == "torch.load":
            assert given.get("weights_only") == "True", place
        if name in ("np.load", "numpy.load"):
            assert given.get("allow_pickle") == "False", place


def test_seeds_are_passed_in() -> None:
    found = [place for place, name, *_ in calls() if GLOBAL_SEED.fullmatch(name)]
    # Dropout knows no generator: one context manager seeds torch for it and puts everything back.
    assert [place.partition(":")[0] for place in found] == ["src/handful/core/train.py"]


def test_text_files_name_their_encoding() -> None:
    for place, name, call, given in calls():
        if name.endswith((".read_text", ".write_text")):
            assert "encoding" in given or len(call.args) > name.endswith("write_text"), place
        if name == "open":
            mode = ast.unparse(call.args[1]) if len(call.args) > 1 else given.get("mode", "'r'")
            assert "b" in mode or "encoding" in given, place


@pytest.mark.parametrize("start", ["import handful", "from handful.cli import main; main(['--help'])"])
def test_starts_light(start: str) -> None:
    program = f"import sys\n{start}\nprint('\\nHEAVY', *(name for name in {HEAVY!r} if name in sys.modules))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1].split() == ["HEAVY"]


def test_one_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == handful.__version__
    assert f"## {handful.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"version: {handful.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert all((ROOT / name).stat().st_size for name in project["license-files"])


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "NOTICE"])
def test_links_lead_somewhere(name: str) -> None:
    for target in re.findall(r"\]\(([^)#]+)", (ROOT / name).read_text(encoding="utf-8")):
        assert "://" in target or (ROOT / target).exists(), f"{name} links to {target}"


def test_no_path_of_one_machine() -> None:
    machine = re.compile(r"(?<![\w.])/(?:work|tmp|root|home/\w+)/")
    texts = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("script/*"), *TREES]
    found = [path for path in texts if machine.search(path.read_text(encoding="utf-8"))]
    assert not found
