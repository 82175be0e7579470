"""Which strategies there are and what each may be told, read from their files without importing torch.

``ingest`` and the command line check a project's strategy before a round takes a number; they run where there is no
torch, and the answer is in the text of ``alfamix_core/acquisition/strategies/<name>.py``.
"""

import ast
import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from alfamix_core import __file__ as _package
from alfamix_core.errors import InputError
from alfamix_core.records.project import StrategySettings

_FOLDER = Path(_package).parent / "acquisition" / "strategies"
_GIVEN = "seed"


@dataclass(frozen=True)
class Kind:
    """What a tunable takes.

    Attributes:
        types: Python types of JSON values that fit; empty where only choices do.
        choices: the values that fit, where they can be listed.
    """

    types: tuple[type, ...] = ()
    choices: tuple[object, ...] = ()

    def fits(self, value: object) -> bool:
        """Tell whether a value may be given; true is no number."""
        if any(value == choice and type(value) is type(choice) for choice in self.choices):
            return True
        return type(value) in self.types or (float in self.types and type(value) is int)

    def words(self) -> str:
        """Say what fits in a user's words."""
        names = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", type(None): "null"}
        return " or ".join([*(json.dumps(choice) for choice in self.choices), *(names[each] for each in self.types)])


@cache
def strategies() -> Mapping[str, Mapping[str, Kind]]:
    """Return, by strategy, its tunables and what they take."""
    return {path.stem: _tunables(path) for path in sorted(_FOLDER.glob("*.py")) if path.stem != "__init__"}


def _tunables(path: Path) -> dict[str, Kind]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == "prepare":
            arguments = [argument for argument in node.args.kwonlyargs if argument.arg != _GIVEN]
            return {argument.arg: _kind(argument.annotation, tree) for argument in arguments}
    raise AssertionError(f"{path} has no function prepare")


def _kind(annotation: ast.expr | None, tree: ast.Module) -> Kind:
    """Read an annotation: a simple type, a Literal, a union of these, or a name that the file imports for one."""
    simple = {"bool": bool, "int": int, "float": float, "str": str}
    if isinstance(annotation, ast.Constant) and annotation.value is None:
        return Kind((type(None),))
    if isinstance(annotation, ast.BinOp):
        left, right = _kind(annotation.left, tree), _kind(annotation.right, tree)
        return Kind(left.types + right.types, left.choices + right.choices)
    if isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value) == "Literal":
        choices = ast.literal_eval(annotation.slice)
        return Kind(choices=choices if isinstance(choices, tuple) else (choices,))
    assert isinstance(annotation, ast.Name), f"a tunable's annotation cannot be read: {annotation}"
    if annotation.id in simple:
        return Kind((simple[annotation.id],))
    return _imported_kind(annotation.id, tree)


def _imported_kind(name: str, tree: ast.Module) -> Kind:
    """Read what a name stands for in the module from which a file imports it, be that by way of others."""
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and any(alias.name == name for alias in node.names):
            path = Path(_package).parent.parent / (str(node.module).replace(".", "/") + ".py")
            origin = ast.parse(path.read_text(encoding="utf-8"))
            for statement in origin.body:
                if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == name:
                    return _kind(statement.value, origin)
            return _imported_kind(name, origin)
    raise AssertionError(f"the annotation {name} is not a simple type, nor imported from where it is one")


def check(settings: StrategySettings) -> None:
    """Refuse an unknown strategy, an unknown parameter, or a value that the parameter does not take.

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
    for parameter, value in settings.parameters.items():
        if parameter not in tunables:
            listed = ", ".join(tunables) if tunables else "none"
            raise InputError(f'strategy.parameters: {settings.name} has no parameter "{parameter}"; it knows: {listed}')
        if not tunables[parameter].fits(value):
            wanted = tunables[parameter].words()
            raise InputError(f"strategy.parameters.{parameter} must be {wanted}, not {json.dumps(value)}")
