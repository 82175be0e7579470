"""The strategies, by file name: ``strategies/margin.py`` is the strategy ``margin``. No list is kept by hand.

Other packages add strategies by an entry point, see ``registry``.
"""

import importlib
import inspect
from collections.abc import Mapping
from typing import Any

from alfamix_core.acquisition import registry
from alfamix_core.acquisition.strategy import Strategy, StrategyModule
from alfamix_core.acquisition.types import COLUMNS
from alfamix_core.errors import InputError

names = registry.names

_PARAMETERS = {
    "prepare": ("labelled", "head", "tunables", "seed"),
    "score": ("block", "state"),
    "keep": ("scores", "state", "reach"),
    "select": ("scores", "state", "batch", "generator"),
}
"""Functions of a strategy and their parameters; ``seed`` is passed by keyword."""


def load(name: str, parameters: Mapping[str, object] | None = None) -> Strategy:
    """Return a strategy with its tunables.

    Args:
        name: One of ``names()``.
        parameters: Tunables by name; omitted ones keep their default.

    Returns:
        The strategy, ready to be used.

    Raises:
        InputError: No strategy or no tunable has that name, a value does not fit, or a strategy of another package
            lacks a part of a strategy.
    """
    tunables = registry.check(name, parameters or {})
    point = registry.outside(registry.GROUP, name)
    if point is None:
        return Strategy(name, importlib.import_module(f"{__name__}.{name}"), tunables)
    return Strategy(name, _checked(registry.imported(point), registry.described(point)), tunables)


def _checked(module: Any, where: str) -> StrategyModule:
    """Return a module of another package that has the shape of a strategy.

    Raises:
        InputError: A name is missing or stands for something else; it names the first.
    """

    def must(holds: bool, words: str) -> None:
        if not holds:
            raise InputError(f"{where}: {words}")

    columns = getattr(module, "COLUMNS", None)
    must(
        isinstance(columns, frozenset) and columns <= COLUMNS,
        f"COLUMNS must be a frozenset of some of {', '.join(sorted(COLUMNS))}, not {columns!r}",
    )
    for flag in ("NEEDS_LABELS", "USES_HEAD"):
        value = getattr(module, flag, None)
        must(isinstance(value, bool), f"{flag} must be True or False, not {value!r}")
    for function, parameters in _PARAMETERS.items():
        defined: Any = getattr(module, function, None)
        must(callable(defined), f"must define a function {function}")
        by_name = {name: None for name in parameters if name == "seed"}
        try:
            inspect.signature(defined).bind(*(name for name in parameters if name not in by_name), **by_name)
        except (TypeError, ValueError) as error:
            raise InputError(f"{where}: {function} must take {', '.join(parameters)}: {error}") from None
    return module  # type: ignore[no-any-return]
