"""The GPU's part of docs/benchmarks.md, from the results of `make gpu`.

python -m benchmarks.gpu.table      writes it between its two marks
"""

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "gpu.json"
PAGE = ROOT / "docs" / "benchmarks.md"
FIRST, LAST = "<!-- from benchmarks/gpu.json, by make docs -->", "<!-- end of benchmarks/gpu.json -->"


def render(results: dict[str, Any] | None) -> str:
    """Return the part as Markdown; without results it states that no GPU has run it."""
    if results is None:
        return "No GPU has run `make gpu` yet.\n"
    environment, rates = results["environment"], results["rates"]
    where = f"{environment['device']}, {environment.get('memory_gib', '?')} GiB, torch {environment['torch']}"
    text = (
        f"{where}. Measured on it: products of float32 {rates['float32'] / 1e12:.1f} and of float64 "
        f"{rates['float64'] / 1e12:.1f} TFLOP/s,\ncopies {rates['bandwidth'] / 1e12:.2f} TB/s. **products** is the "
        "share of the time that the matrix products take at those rates, **moves** the share\nthat the bytes of all "
        "operators take at that bandwidth; caches serve some of them, so it can exceed 100 %.\n\n"
    )
    tests = results["parts"].get("tests")
    if tests:
        skipped = sum(tests["skipped"].values())
        text += (
            f"Tests of acquisition on it: {tests['passed']} passed, {len(tests['failed'])} failed, {skipped} skipped"
        )
        text += "".join(f" ({count}: {words})" for words, count in tests["skipped"].items()) + ".\n\n"
        names = sorted({line["test"].split("[")[0] for line in tests["failed"]})
        text += f"Failed: {', '.join(names)}.\n\n" if names else ""
    text += "| | size | s | products | moves | GiB | |\n|---|---|---|---|---|---|---|\n"
    for part in results["parts"].values():
        for line in part.get("lines", []):
            shares = f"{line['products']:.0%} | {line['moves']:.0%} | {line['peak_gib']:.1f}"
            text += f"| {line['what']} | {line['size']} | {line['seconds']:.3g} | {shares} | {line['note']} |\n"
    for name, part in results["parts"].items():
        if name != "tests" and part["ended"] not in ("done", "nothing to measure"):
            text += f"\n{name}: {part['ended']}.\n"
    return text


def page(old: str, results: dict[str, Any] | None) -> str:
    """Return the page with the part between the marks replaced."""
    before, _, rest = old.partition(FIRST)
    _, _, after = rest.partition(LAST)
    return f"{before}{FIRST}\n{render(results)}{LAST}{after}"


def results() -> dict[str, Any] | None:
    """Return the contents of the file, None if there is none."""
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else None


def main() -> int:
    """Write the page; return 0."""
    PAGE.write_text(page(PAGE.read_text(), results()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
