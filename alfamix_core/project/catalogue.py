"""Which strategies there are and what each may be told, read from their files without importing torch.

``ingest`` and the command line check a project's strategy before a round takes a number; they run where there is no
torch, and the answer is in the text of ``alfamix_core/acquisition/strategies/<name>.py``.
"""

import ast
import difflib
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from alfamix_core import __file__ as _package
from alfamix_core.errors import InputError
from alfamix_core.records.project import StrategySettings

_FOLDER = Path(_package).parent / "acquisition" / "strategies"
_GIVEN = "seed"


@cache
def strategies() -> Mapping[str, Mapping[str, str]]:
    """Return, by strategy, its tunables and their annotations as written."""
    return {path.stem: _tunables(path) for path in sorted(_FOLDER.glob("*.py")) if path.stem != "__init__"}


def _tunables(path: Path) -> dict[str, str]:
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.name == "prepare":
            return {
                argument.arg: ast.unparse(argument.annotation) if argument.annotation else ""
                for argument in node.args.kwonlyargs
                if argument.arg != _GIVEN
            }
    raise AssertionError(f"{path} has no function prepare")


def check(settings: StrategySettings) -> None:
    """Refuse an unknown strategy or parameter.

    Raises:
        InputError: it names what came and lists what is known.
    """
    known = strategies()
    for field, name in (("strategy.name", settings.name), ("strategy.cold_start", settings.cold_start)):
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f'; did you mean "{near[0]}"?' if near else ""
            raise InputError(f'{field}: unknown strategy "{name}"; known are {", ".join(known)}{hint}')
    tunables = known[settings.name]
    for parameter in settings.parameters:
        if parameter not in tunables:
            listed = ", ".join(tunables) if tunables else "none"
            raise InputError(f'strategy.parameters: {settings.name} has no parameter "{parameter}"; it knows: {listed}')
