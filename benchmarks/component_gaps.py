"""Print the gap between the twins of each component at step 1, from certificates (docs/measurements/certificates.md).

    python benchmarks/component_gaps.py CERTIFICATE_FOLDER ...

Layers of one kind share a row with the largest gap: ``encoder.0.feed_forward`` and ``encoder.1.feed_forward`` are
``encoder.feed_forward``. Gaps are relative, of the outputs of the component and of the gradients of its parameters.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

LEVELS = 2  # parts of a name, without numbers


def component(gap: dict[str, str]) -> str:
    """Return the row of a gap."""
    if gap["kind"] == "loss":
        return "loss"
    parts = [part.rstrip("0123456789") for part in gap["name"].split(".")]
    return ".".join([part for part in parts if part and part not in ("weight", "bias")][:LEVELS])


def rows(folder: Path) -> tuple[str, dict[str, dict[tuple[str, str], float]]]:
    """Return the model, and component -> (kind, precision) -> largest gap."""
    certificate = json.loads((folder / "certificate.json").read_text("utf-8"))
    gaps: dict[str, dict[tuple[str, str], float]] = {}
    for precision in ("float64", "float32"):
        for gap in certificate[precision]["first_step"]:
            row, key = gaps.setdefault(component(gap), {}), (gap["kind"], precision)
            row[key] = max(row.get(key, 0.0), gap["gap"])
    return certificate["model"], gaps


def main(folders: list[Path]) -> None:
    columns = [(kind, precision) for precision in ("float64", "float32") for kind in ("intermediate", "gradient")]
    print("| component | forward, float64 | gradients, float64 | forward, float32 | gradients, float32 |")
    print("|---|---|---|---|---|")
    for folder in folders:
        model, components = rows(folder)
        for name, gaps in components.items():
            gaps |= {("intermediate", p): v for (kind, p), v in gaps.items() if kind == "loss"}
            cells = [f"{gaps[column]:.1e}" if column in gaps else "" for column in columns]
            print(f"| `{model}`: {name} | {' | '.join('0' if c == '0.0e+00' else c for c in cells)} |")


if __name__ == "__main__":
    main([Path(word) for word in sys.argv[1:]])
