"""What `handful advise method` knows: how far each head was behind the best one, from ``results/regret.json``.

    python benchmarks/advice.py

Writes ``src/handful/evaluate/measured.json``: points of accuracy behind the best head of the same row, averaged over
data sets, by number of shots, apart for sets with class names and without. Numbers of shots are taken together under
the nearest of 1, 5, 16.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from handful.files import whole_file

HERE = Path(__file__).resolve().parent
SHOTS = (1, 5, 16)
PEER = "scikit-learn"


def measured(regret: Mapping[str, list]) -> dict[str, object]:
    """The table from the rows of ``regret.json``."""
    points: dict[str, dict[int, dict[str, list[float]]]] = {
        kind: {k: defaultdict(list) for k in SHOTS} for kind in ("plain", "names")
    }
    for row in regret["rows"]:
        found = {name: entry["value"] for name, entry in row["accuracy"].items() if name != PEER}
        named = any(name.endswith("+names") for name in found)
        with_names = {}
        for name, value in found.items():  # a head that takes names and has them is that head, not another
            key = name.removesuffix("+names")
            with_names[key] = value if name.endswith("+names") or key not in with_names else with_names[key]
        plain = {n: v for n, v in found.items() if not n.endswith("+names") and (not named or n != "auto")}
        shots = min(SHOTS, key=lambda k: abs(k - row["shots"]))
        for kind, values in (("plain", plain), *((("names", with_names),) if named else ())):
            for head, value in values.items():
                points[kind][shots][head].append(max(values.values()) - value)
    behind = {
        kind: {
            str(k): {head: {"points": round(sum(v) / len(v), 2), "sets": len(v)} for head, v in sorted(heads.items())}
            for k, heads in table.items()
        }
        for kind, table in points.items()
    }
    return {"source": "benchmarks/results/regret.json", "shots": list(SHOTS), "behind": behind}


def main() -> None:
    """Write the table."""
    found = measured(json.loads((HERE / "results" / "regret.json").read_text(encoding="utf-8")))
    with whole_file(HERE.parent / "src" / "handful" / "evaluate" / "measured.json") as file:
        file.write((json.dumps(found, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
