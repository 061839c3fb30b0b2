"""How far each component's twins are apart at step 1 of certificates, as docs/measurements/certificates.md has them.

    python benchmarks/component_gaps.py CERTIFICATE_FOLDER ...

Layers of one kind are one row, with the largest of them: ``encoder.0.feed_forward`` and ``encoder.1.feed_forward`` are
``encoder.feed_forward``. Relative, of what the component gives out and of the gradients of its parameters.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

LEVELS = 2  # of a name, numbers left out


def component(gap: dict[str, str]) -> str:
    """The row that a gap belongs to."""
    if gap["kind"] == "loss":
        return "loss"
    parts = [part.rstrip("0123456789") for part in gap["name"].split(".")]
    return ".".join([part for part in parts if part and part not in ("weight", "bias")][:LEVELS])


def rows(folder: Path) -> tuple[str, dict[str, dict[tuple[str, str], float]]]:
    """The model, and component -> (kind, precision) -> largest gap."""
    told = json.loads((folder / "certificate.json").read_text("utf-8"))
    found: dict[str, dict[tuple[str, str], float]] = {}
    for precision in ("float64", "float32"):
        for gap in told[precision]["first_step"]:
            row, key = found.setdefault(component(gap), {}), (gap["kind"], precision)
            row[key] = max(row.get(key, 0.0), gap["gap"])
    return told["model"], found


def main(folders: list[Path]) -> None:
    columns = [(kind, precision) for precision in ("float64", "float32") for kind in ("intermediate", "gradient")]
    print("| component | forward, float64 | gradients, float64 | forward, float32 | gradients, float32 |")
    print("|---|---|---|---|---|")
    for folder in folders:
        model, found = rows(folder)
        for name, gaps in found.items():
            gaps |= {("intermediate", p): v for (kind, p), v in gaps.items() if kind == "loss"}
            cells = [f"{gaps[column]:.1e}" if column in gaps else "" for column in columns]
            print(f"| `{model}`: {name} | {' | '.join('0' if c == '0.0e+00' else c for c in cells)} |")


if __name__ == "__main__":
    main([Path(word) for word in sys.argv[1:]])
