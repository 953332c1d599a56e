from __future__ import annotations

import subprocess
import sys

import pytest

import handful.read

PROMISED = """
    Dataset ImageFile Provenance from_arrays is_code open_image read read_class_names readable write_table
"""


def test_everything_promised_is_there():
    assert handful.read.__all__ == sorted(PROMISED.split())
    for name in handful.read.__all__:
        assert callable(getattr(handful.read, name))


@pytest.mark.parametrize(
    ("does", "without"),
    [
        ("pass", "polars PIL openpyxl numpy torch"),
        ("handful.read.read(sys.argv[1])", "torch pandas PIL openpyxl pyarrow"),
    ],
)
def test_nothing_is_imported_before_it_is_needed(does, without, tmp_path):
    (tmp_path / "t.csv").write_text("text,label\nx,a\n", encoding="utf-8")
    code = f"import sys, handful.read; {does}; print([m for m in {without.split()} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "t.csv"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
