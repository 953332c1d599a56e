"""The pictures of the documentation: reports of the demo's models in a browser, and the terminal as SVG.

    script/screenshots [FOLDER]      a folder other than docs/images

Needs chromium; the printed page also needs pdftoppm, and is left out without it.
"""

from __future__ import annotations

import argparse
import html
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

HERE = Path(__file__).parent / "images"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome", "msedge")
QUIET = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)
WIDE, PHONE, SHARP = 1120, 390, 2
DARK = "--blink-settings=preferredColorScheme=0"
COLUMNS = 104
COLOURS = 128
COMMANDS = {
    "fit": "handful fit tickets.csv --class-names intents.csv --target-precision 0.95 --out tickets.handful "
    "--report tickets.html",
    "predict": "handful predict tickets.handful new_tickets.csv --top 2",
    "evaluate": "handful evaluate digits.handful digits/test --require 'recall[3]>=0.6'",
    "inspect": "handful inspect tickets.handful",
}


def main() -> None:
    """Take all pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=HERE, help="where they go")
    folder = parser.parse_args().folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        sys.exit("screenshots: no chromium found")
    with tempfile.TemporaryDirectory() as work:
        os.chdir(work)
        from handful.commands.demo import demo

        demo("demo")
        os.chdir("demo")
        for name, command in COMMANDS.items():
            (folder / f"terminal-{name}.svg").write_text(terminal(command), encoding="utf-8")
        camera = Camera(browser, folder)
        camera.shoot(Path("tickets.html"), "report-light", WIDE, 1500)
        camera.shoot(Path("tickets.html"), "report-dark", WIDE, 1500, DARK)
        camera.shoot(Path("digits.html"), "report-pictures", WIDE, 3400)
        camera.phone(Path("tickets.html"), "report-phone", 1500)
        camera.printed(Path("tickets.html"), "report-print")
        os.chdir("/")  # or the folder cannot be removed on Windows


class Camera:
    """A browser without a head that leaves its pictures in a folder."""

    def __init__(self, browser: str, folder: Path) -> None:
        self.browser, self.folder = browser, folder

    def run(self, page: Path, *options: str) -> None:
        """Open a page with these options."""
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
            command = [self.browser, *QUIET, f"--user-data-dir={profile}", *options, page.resolve().as_uri()]
            subprocess.run(command, check=True, capture_output=True, timeout=120)

    def shoot(self, page: Path, name: str, width: int, height: int, *options: str) -> None:
        """The top of a page."""
        target = self.folder / f"{name}.png"
        window = (f"--window-size={width},{height}", f"--force-device-scale-factor={SHARP}")
        self.run(page, *window, f"--screenshot={target}", *options)
        small(target)

    def phone(self, page: Path, name: str, height: int) -> None:
        """The top of a page as a phone shows it: within a frame, as no window is that narrow."""
        text = html.escape(page.read_text(encoding="utf-8"))
        frame = Path("frame.html")
        size = f'width="{PHONE}" height="{height}"'
        frame.write_text(
            f'<!doctype html><meta charset="utf-8"><style>body {{ margin: 0 }}</style>'
            f'<iframe {size} frameborder="0" srcdoc="{text}"></iframe>',
            encoding="utf-8",
        )
        self.shoot(frame, name, 600, height)
        target = self.folder / f"{name}.png"
        with Image.open(target) as picture:
            cut = picture.crop((0, 0, PHONE * SHARP, height * SHARP))
        cut.save(target, optimize=True)

    def printed(self, page: Path, name: str) -> None:
        """The first printed page."""
        if shutil.which("pdftoppm") is None:
            return
        pdf = Path("page.pdf").resolve()
        self.run(page, "--no-pdf-header-footer", f"--print-to-pdf={pdf}")
        target = self.folder / name
        subprocess.run(["pdftoppm", "-r", "110", "-png", "-f", "1", "-singlefile", str(pdf), str(target)], check=True)
        small(target.with_suffix(".png"))


def small(path: Path) -> None:
    """Save a picture with few colours: it is text and flat areas, but for thumbnails."""
    with Image.open(path) as picture:
        reduced = picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    reduced.save(path, optimize=True)


class Screen(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """Always."""
        return True


def terminal(command: str) -> str:
    """What a command prints, as SVG that loads nothing."""
    from rich.console import Console
    from rich.text import Text

    from handful.cli import main as handful

    screen, before = Screen(), (sys.stdout, dict(os.environ))
    os.environ |= {"TERM": "xterm-256color", "COLORTERM": "truecolor", "COLUMNS": str(COLUMNS)}
    os.environ.pop("NO_COLOR", None)
    sys.stdout = screen
    try:
        status = handful(shlex.split(command)[1:])
    finally:
        sys.stdout = before[0]
        os.environ.clear()
        os.environ.update(before[1])
    if status:
        sys.exit(f"screenshots: {command} ended with {status}")
    record = Console(record=True, width=COLUMNS, file=io.StringIO(), highlight=False)
    record.print(Text(f"$ {command}\n", style="bold"))
    record.print(Text.from_ansi(screen.getvalue().rstrip()))
    svg = record.export_svg(title="handful", unique_id=shlex.split(command)[1])
    return re.sub(r"@font-face\s*\{[^}]*\}", "", svg)


if __name__ == "__main__":
    main()
