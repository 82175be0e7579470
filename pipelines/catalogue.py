"""What a catalogue of components asks for: each component's metadata.yaml, and the tables in its page.

    python -m pipelines.catalogue

writes both for all components. They come from the compiled interface, so that nothing is written twice.
"""

import json
from importlib import import_module
from pathlib import Path

from kfp.dsl.structures import ComponentSpec, InputSpec, OutputSpec

from components import images
from components.stages import STAGES

_FOLDER = Path(__file__).parent.parent / "components"
_BEGIN, _END = "<!-- made by `make docs` -->", "<!-- end -->"


def metadata(stage: str) -> str:
    """Return metadata.yaml of a component."""
    lines = [
        f"name: {stage}",
        f"description: {json.dumps(_specification(stage).description, ensure_ascii=False)}",
        "stability: beta",
        "dependencies:",
        "  kubeflow:",
        "    - name: Pipelines",
        '      version: ">=2.17,<2.19"',
        f"image: {images.image(stage)}",
        f"runtime: {STAGES[stage].runtime}",
        f"cached: {str(STAGES[stage].cached).lower()}",
        "owners:",
        "  - alfamix",
        "tags:",
        "  - active-learning",
        "  - computer-vision",
    ]
    return "\n".join(lines) + "\n"


def readme(text: str, stage: str) -> str:
    """Return a component's page with its tables of inputs and outputs renewed, at its end where there are none."""
    before, _, rest = text.partition(_BEGIN)
    after = rest.partition(_END)[2]
    specification = _specification(stage)
    tables = [
        *_table("input", specification.inputs or {}),
        "",
        *_table("output", specification.outputs or {}),
    ]
    return before.rstrip("\n") + "\n\n" + "\n".join([_BEGIN, "", *tables, "", _END]) + (after or "\n")


def _specification(stage: str) -> ComponentSpec:
    return getattr(import_module(f"components.{stage}.component"), stage).component_spec


def _table(title: str, fields: dict[str, InputSpec] | dict[str, OutputSpec]) -> list[str]:
    lines = [f"| {title} | type | meaning |", "|---|---|---|"]
    for name, field in fields.items():
        kind = str(field.type).removeprefix("system.").partition("@")[0]
        many = "list of " if getattr(field, "is_artifact_list", False) else ""
        lines.append(f"| `{name}` | {many}{kind} | {field.description} |")
    return lines


def main() -> None:
    """Write the files of all components."""
    for stage in STAGES:
        page = _FOLDER / stage / "README.md"
        page.write_text(readme(page.read_text("utf-8"), stage), "utf-8")
        (_FOLDER / stage / "metadata.yaml").write_text(metadata(stage), "utf-8")


if __name__ == "__main__":
    main()
