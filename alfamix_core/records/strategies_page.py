"""docs/strategies.md, from the files of the strategies: `python -m alfamix_core.records.strategies_page`."""

import ast
import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from alfamix_core.acquisition import registry
from alfamix_core.acquisition import tunables as _tunables

_STRATEGIES = Path(_tunables.__file__).parents[1] / "strategies"
_HEAD = """# Strategies

A strategy decides which samples of the pool are asked about. `alfamix init --strategy NAME` chooses one, and `--set
strategy.parameters.NAME=VALUE` sets one of its parameters; [library.md](library.md) does both for arrays without a
project. Scores are higher for more informative samples, and ties go to the lower position. N is the number of pool
samples, n that of a block, L that of labelled samples, D the embedding size, K the number of classes and B the budget.

No strategy wins everywhere. Before a model exists, start with `typiclust` or `probcover`; compare every other choice
with `random` and `margin`. [algorithm.md](algorithm.md) derives what `alfamix` computes; [add-a-strategy.md](
add-a-strategy.md) adds one. `python -m alfamix_core.records.strategies_page` generates this page from the strategies'
files; a test compares it.
"""


def _docstring(name: str) -> str:
    """Return the docstring of a strategy's file, which is not imported: it needs torch."""
    text = ast.get_docstring(ast.parse((_STRATEGIES / f"{name}.py").read_text(encoding="utf-8")))
    assert text is not None, f"{name}.py has no docstring"
    return text.replace("``", "`")


def _parameters(name: str) -> Iterator[str]:
    """Yield the lines of a table of a strategy's tunables."""
    annotations = registry.annotations(name)
    if not annotations:
        yield "It has no parameters."
        return
    yield from ("| parameter | takes | default | meaning |", "|---|---|---|---|")
    for field in dataclasses.fields(registry.tunables(name)):
        annotation = annotations[field.name]
        default = json.dumps(field.default)
        yield f"| `{field.name}` | {registry.words(annotation)} | `{default}` | {registry.meaning(annotation)} |"


def markdown() -> str:
    """Return docs/strategies.md."""
    lines = [_HEAD, "| name | in one sentence |", "|---|---|"]
    for name in registry.own_names():
        sentence = " ".join(_docstring(name).partition("\n\n")[0].split())
        lines.append(f"| [{name}](#{name}) | {sentence} |")
    for name in registry.own_names():
        _, _, body = _docstring(name).partition("\n\n")
        lines += ["", f"## {name}", "", body, "", *_parameters(name)]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(markdown())
