"""The report in a real browser: nothing is refused, nothing sticks out, it prints, it is light and dark."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from report_cards import DATE, HOSTILE, full_card, make_examples, picture_example, strings, text_example

from handful.ship.evidence import Example
from handful.ship.report import render

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine"),
]
QUIET = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--enable-logging=stderr",
    "--v=0",
]
COMPLAINTS = ("Refused to", "violates", "Uncaught", "ERR_")
LONG = [
    "a_class_name_without_any_place_to_break_it_" * 4,
    "eine Klasse mit einem recht langen Namen, der nicht endet",
    "b",
]
PAGES: dict[str, Callable[[], str]] = {
    "texts": lambda: _page(["double_charge", "invoice", "refund"], text_example),
    "pictures": lambda: _page(["double_charge", "invoice", "refund"], picture_example),
    "long names": lambda: _page(LONG, text_example),
    "150 classes": lambda: _page([f"intent_number_{i:03d}" for i in range(150)], text_example, 450),
    "hostile": lambda: _hostile(),
}


def _page(classes: list[str], example: Callable[[int], Example], n: int = 60) -> str:
    card = full_card(classes, n)
    return render(card, make_examples(card, example), date=DATE)


def _hostile() -> str:
    card = strings(full_card(), HOSTILE) | {"metric": "accuracy"}
    return render(card, make_examples(card, lambda row: Example(HOSTILE, HOSTILE)), date=DATE)


@pytest.fixture
def browse(tmp_path: Path) -> Callable[..., str]:
    """Run chromium on a page with these options; its log."""

    def go(text: str, *options: str) -> str:
        path = tmp_path / "report.html"
        path.write_text(text, encoding="utf-8")
        command = [str(CHROMIUM), *QUIET, f"--user-data-dir={tmp_path / 'profile'}", *options, path.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    return go


@pytest.mark.parametrize("name", PAGES)
def test_the_browser_refuses_nothing_and_runs_nothing(browse: Callable[..., str], name: str) -> None:
    log = browse(PAGES[name](), "--dump-dom")
    assert "</html>" in log
    for complaint in COMPLAINTS:
        assert complaint not in log, re.findall(rf".*{complaint}.*", log)[:3]


def test_the_browser_would_complain(browse: Callable[..., str]) -> None:
    for foreign in ("<p style='color: red'>", "<script>document.title = 1</script>", "<img src=picture.png>"):
        log = browse(PAGES["texts"]().replace("</main>", f"{foreign}</main>"), "--dump-dom")
        assert any(complaint in log for complaint in COMPLAINTS), foreign


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_sticks_out_at_the_side(browse: Callable[..., str], name: str, width: int) -> None:
    frame = f'<!doctype html><iframe width={width} height=900 srcdoc="{html.escape(PAGES[name]())}"></iframe>'
    measure = (
        "<script>addEventListener('load', () => {"
        " const page = document.querySelector('iframe').contentDocument.documentElement;"
        " document.title = `MEASURED ${page.scrollWidth} ${page.clientWidth}`; })</script>"
    )
    log = browse(frame + measure, "--window-size=1400,1000", "--dump-dom")
    found = re.search(r"<title>MEASURED (\d+) (\d+)", log)
    assert found, log[:300]
    assert int(found[1]) <= int(found[2]) == width


def colours(path: Path) -> tuple[float, int]:
    """Mean brightness of a picture, and its height."""
    with Image.open(path) as picture:
        small = picture.convert("L").resize((1, 1), Image.Resampling.BOX)
        return float(small.getpixel((0, 0))), picture.height  # type: ignore[arg-type]


def test_light_and_dark(browse: Callable[..., str], tmp_path: Path) -> None:
    light, dark = tmp_path / "light.png", tmp_path / "dark.png"
    size, darkly = "--window-size=1000,1400", "--blink-settings=preferredColorScheme=0"
    browse(PAGES["texts"](), size, f"--screenshot={light}")
    browse(PAGES["texts"](), size, f"--screenshot={dark}", darkly)
    assert colours(light)[0] > 200
    assert colours(dark)[0] < 70


def test_it_prints(browse: Callable[..., str], tmp_path: Path) -> None:
    pdf = tmp_path / "report.pdf"
    browse(PAGES["pictures"](), "--no-pdf-header-footer", f"--print-to-pdf={pdf}")
    pages = len(re.findall(rb"/Type\s*/Page\b(?!s)", pdf.read_bytes()))
    assert 3 <= pages <= 10
