"""The strategies, found by file name: ``strategies/margin.py`` is the strategy ``margin``. No list is kept by hand."""

import importlib
import inspect
import pkgutil
import types
from collections.abc import Mapping
from typing import Any, Literal, Union, cast, get_args, get_origin

from alfamix_core.acquisition.strategy import Strategy, StrategyModule
from alfamix_core.errors import InputError


def names() -> list[str]:
    """Return the names of all strategies, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def tunables(name: str) -> dict[str, inspect.Parameter]:
    """Return the tunables of a strategy: its ``prepare``'s keyword-only arguments other than the seed.

    Args:
        name: one of ``names()``.

    Returns:
        From name to parameter, with default and annotation, in the order of the signature.
    """
    prepare = inspect.signature(_module(name).prepare, eval_str=True)
    return {
        key: parameter
        for key, parameter in prepare.parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and key != "seed"
    }


def load(name: str, parameters: Mapping[str, object] | None = None) -> Strategy:
    """Return a strategy with its parameters.

    Args:
        name: one of ``names()``.
        parameters: tunables by name; those left out keep their default.

    Returns:
        The strategy, ready to be used.

    Raises:
        InputError: no strategy or no tunable has that name, or a value is of the wrong type. What is known is listed.
    """
    known = tunables(name)
    parameters = dict(parameters or {})
    for key, value in parameters.items():
        if key not in known:
            listed = f"known: {', '.join(sorted(known))}" if known else "it has none"
            raise InputError(f'strategy "{name}": unknown parameter "{key}"; {listed}')
        if not _fits(value, known[key].annotation):
            raise InputError(f'strategy "{name}": {key} must be {_words(known[key].annotation)}, not {value!r}')
    return Strategy(name, _module(name), types.MappingProxyType(parameters))


def _module(name: str) -> StrategyModule:
    if name not in names():
        raise InputError(f'unknown strategy "{name}"; known: {", ".join(names())}')
    return cast(StrategyModule, importlib.import_module(f"{__name__}.{name}"))


def _fits(value: object, annotation: Any) -> bool:
    """Tell whether a value is of a simple type: bool, int, float, str, a Literal or a union of these."""
    if get_origin(annotation) is Literal:
        return any(value == choice and type(value) is type(choice) for choice in get_args(annotation))
    if get_origin(annotation) in (Union, types.UnionType):
        return any(_fits(value, choice) for choice in get_args(annotation))
    if annotation is None or annotation is type(None):
        return value is None
    if annotation is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, annotation)


def _words(annotation: Any) -> str:
    """Say a type in a user's words."""
    if get_origin(annotation) is Literal:
        return " or ".join(f'"{choice}"' if isinstance(choice, str) else str(choice) for choice in get_args(annotation))
    if get_origin(annotation) in (Union, types.UnionType):
        return " or ".join(_words(choice) for choice in get_args(annotation))
    if annotation is None or annotation is type(None):
        return "nothing"
    return {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}[annotation]
