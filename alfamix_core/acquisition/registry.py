"""The names of the strategies and their tunables, without importing torch.

``strategies/bald.py`` is the strategy ``bald``, and ``tunables/bald.py``, if there is one, holds what a user may set.
A package beside this one adds a strategy by the entry point ``alfamix.strategies``, which names the module, and its
tunables by ``alfamix.tunables``, which names the dataclass. ``ingest`` and ``alfamix init`` check a project's strategy
in an image without torch, so no module of a strategy is imported here.
"""

import dataclasses
import difflib
import importlib
import json
import math
import sys
import types
from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from alfamix_core.acquisition.tunable_types import NoTunables
from alfamix_core.errors import InputError

GROUP = "alfamix.strategies"
TUNABLES_GROUP = "alfamix.tunables"

_HERE = Path(__file__).parent
_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", type(None): "null"}
_BOUNDS = {"ge": "from {:g} on", "gt": "above {:g}", "le": "up to {:g}", "lt": "below {:g}"}


def own_names() -> list[str]:
    """Return the names of the strategies of this package, sorted."""
    return sorted(path.stem for path in (_HERE / "strategies").glob("*.py") if not path.stem.startswith("_"))


def names() -> list[str]:
    """Return the names of all strategies, sorted."""
    return sorted({*own_names(), *(point.name for point in _outside(GROUP, tuple(sys.path)))})


@cache
def _outside(group: str, path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    """Return the entry points of a group; they change only with the search path."""
    return tuple(entry_points(group=group))


def outside(group: str, name: str) -> EntryPoint | None:
    """Return the entry point of a strategy of another package, None for a strategy of this one.

    Args:
        group: ``GROUP`` or ``TUNABLES_GROUP``.
        name: Name of the strategy.

    Raises:
        InputError: Two packages, or another package and this one, have a strategy of that name.
    """
    # the same distribution may be found twice, in two folders of the search path
    points = {(origin(point), point.value): point for point in _outside(group, tuple(sys.path)) if point.name == name}
    brought_by = [f"{package} ({value})" for package, value in points]
    if name in own_names() and points:
        raise InputError(f'strategy "{name}" is part of alfamix; {brought_by[0]} must give its own another name')
    if len(points) > 1:
        raise InputError(f'strategy "{name}": two packages bring it, {" and ".join(brought_by)}; remove one')
    return next(iter(points.values()), None)


def origin(point: EntryPoint) -> str:
    """Return the package that an entry point belongs to."""
    return point.dist.name if point.dist is not None else "an unknown package"


def described(point: EntryPoint) -> str:
    """Return the name of a strategy of another package as errors write it."""
    return f'strategy "{point.name}" ({point.value} of {origin(point)})'


def imported(point: EntryPoint) -> Any:
    """Return the object that an entry point names.

    Raises:
        InputError: It cannot be imported.
    """
    try:
        return point.load()
    except (ImportError, AttributeError, SyntaxError) as error:
        raise InputError(f"{described(point)} cannot be imported: {error}") from None


def tunables(name: str) -> type:
    """Return the dataclass of a strategy's tunables.

    Args:
        name: One of ``names()``.

    Raises:
        InputError: No strategy has that name, or the dataclass is not one of tunables.
    """
    if name not in names():
        near = difflib.get_close_matches(name.lower(), names(), n=1)
        hint = f'; did you mean "{near[0]}"?' if near else ""
        raise InputError(f"unknown strategy {_shown(name)}; known: {', '.join(names())}{hint}")
    outside(GROUP, name)
    if (_HERE / "tunables" / f"{name}.py").exists():
        module = importlib.import_module(f"alfamix_core.acquisition.tunables.{name}")
        return module.Tunables  # type: ignore[no-any-return]
    point = outside(TUNABLES_GROUP, name)
    if point is None:
        return NoTunables
    kind = imported(point)
    _check_class(kind, described(point))
    return kind  # type: ignore[no-any-return]


def _is_frozen(kind: Any) -> bool:
    return bool(kind.__dataclass_params__.frozen)


def _check_class(kind: Any, where: str) -> None:
    """Refuse tunables of another package that are not a dataclass of tunables.

    Raises:
        InputError: It is no frozen dataclass, or a field has no default or an annotation that cannot be checked.
    """
    if not (isinstance(kind, type) and dataclasses.is_dataclass(kind) and _is_frozen(kind)):
        raise InputError(f"{where}: tunables must be a frozen dataclass")
    try:
        annotations = get_type_hints(kind, include_extras=True)
    except (NameError, TypeError) as error:
        raise InputError(f"{where}: the annotations of the tunables cannot be read: {error}") from None
    for field in dataclasses.fields(kind):
        if field.default is dataclasses.MISSING:
            raise InputError(f'{where}: tunable "{field.name}" must have a default')
        if not _is_simple(annotations[field.name]):
            raise InputError(
                f'{where}: tunable "{field.name}" must be a bool, int, float, str, Literal, or a union of these, '
                f"not {annotations[field.name]}"
            )
        if not fits(field.default, annotations[field.name]):
            wanted = words(annotations[field.name])
            raise InputError(f'{where}: tunable "{field.name}" has the default {_shown(field.default)}, not {wanted}')


def _is_simple(annotation: Any) -> bool:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _is_simple(arguments[0])
    if origin in (Union, types.UnionType):
        return all(_is_simple(choice) for choice in arguments)
    return origin is Literal or annotation in _KINDS


def annotations(name: str) -> dict[str, Any]:
    """Return the annotations of a strategy's tunables by name, bounds and meaning included, in their order."""
    return get_type_hints(tunables(name), include_extras=True)


def meaning(annotation: Any) -> str:
    """Return the meaning of a tunable, from its annotation."""
    return next((text for text in getattr(annotation, "__metadata__", ()) if isinstance(text, str)), "")


def check(name: str, parameters: Mapping[str, object]) -> Any:
    """Return the tunables of a strategy with a user's values.

    Args:
        name: One of ``names()``.
        parameters: Tunables by name; omitted ones keep their default.

    Returns:
        An instance of ``tunables(name)``.

    Raises:
        InputError: No strategy or no tunable has that name, or a value does not fit. The message lists the known ones.
    """
    kind, known = tunables(name), annotations(name)
    for key, value in parameters.items():
        if key not in known:
            listed = f"known: {', '.join(known)}" if known else "it has none"
            raise InputError(f'strategy "{name}": unknown parameter {_shown(key)}; {listed}')
        if not fits(value, known[key]):
            raise InputError(f'strategy "{name}": {key} must be {words(known[key])}, not {_shown(value)}')
    # numbers without a fraction arrive as integers of any length
    values: dict[str, Any] = dict(parameters)
    values |= {key: float(value) for key, value in values.items() if _is_float(value, known[key])}
    try:
        return kind(**values)
    except ValueError as error:
        raise InputError(f'strategy "{name}": {error}') from None


def fits(value: object, annotation: Any) -> bool:
    """Tell whether a value fits an annotation; true is not a number, and neither are nan and inf."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return fits(value, arguments[0]) and all(_holds(value, rule) for rule in arguments[1:])
    if origin is Literal:
        return any(value == choice and type(value) is type(choice) for choice in arguments)
    if origin in (Union, types.UnionType):
        return any(fits(value, choice) for choice in arguments)
    if annotation is float:
        return type(value) in (int, float) and abs(value) <= sys.float_info.max  # type: ignore[arg-type]
    return type(value) is annotation


def _is_float(value: object, annotation: Any) -> bool:
    """Tell whether an integer stands for a floating-point number."""
    if get_origin(annotation) in (Annotated, Union, types.UnionType):
        return any(_is_float(value, choice) for choice in get_args(annotation))
    return annotation is float and type(value) is int


def _holds(value: Any, rule: object) -> bool:
    """Tell whether a value keeps a bound; anything else in the annotation, such as the meaning, always holds."""
    bounds = {name: getattr(rule, name) for name in _BOUNDS if hasattr(rule, name)}
    if value is None or not bounds:
        return True
    return bool(
        bounds.get("ge", -math.inf) <= value <= bounds.get("le", math.inf)
        and value > bounds.get("gt", -math.inf)
        and value < bounds.get("lt", math.inf)
    )


def words(annotation: Any) -> str:
    """Return a user's words for the values that fit an annotation."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        rules = [
            text.format(getattr(rule, name))
            for rule in arguments[1:]
            for name, text in _BOUNDS.items()
            if hasattr(rule, name)
        ]
        return " ".join([words(arguments[0]), " and ".join(rules)]).strip()
    if origin is Literal:
        return " or ".join(json.dumps(choice) for choice in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(words(choice) for choice in arguments)
    return _KINDS[annotation]


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=repr)
    return text if len(text) <= 60 else text[:57] + "..."
