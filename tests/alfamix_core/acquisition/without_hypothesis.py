"""What tests of properties need in order to be collected on a machine without hypothesis: there, each is skipped."""

import inspect
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import pytest

REASON = "hypothesis is not installed"


class _Anything:
    """A strategy, a set of settings or a health check: whatever is read from it or made with it is another."""

    def __getattr__(self, name: str) -> "_Anything":
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __call__(self, *values: object, **named: object) -> "_Anything":
        return self


def _unchanged(*values: object, **named: object) -> Callable[[Any], Any]:
    return lambda test: test


def _given(*values: object, **named: object) -> Callable[[Any], Any]:
    def skipped(test: Callable[..., object]) -> Callable[..., None]:
        @pytest.mark.skip(reason=REASON)
        def without_values(**fixtures: object) -> None:
            raise AssertionError(REASON)

        signature = inspect.signature(test)
        others = [parameter for name, parameter in signature.parameters.items() if name not in named]
        # values by place belong to the last arguments
        left = others[: len(others) - len(values)]
        without_values.__signature__ = signature.replace(parameters=left)  # type: ignore[attr-defined]
        without_values.__name__, without_values.__doc__ = test.__name__, test.__doc__
        return without_values

    return skipped


def install() -> None:
    """Put modules with the names that tests import in the place of those that are missing."""
    package, strategies = ModuleType("hypothesis"), ModuleType("hypothesis.strategies")
    anything = _Anything()
    package.given, package.settings, package.example = _given, _unchanged, _unchanged  # type: ignore[attr-defined]
    package.HealthCheck = package.assume = package.note = anything  # type: ignore[attr-defined]
    package.strategies = strategies  # type: ignore[attr-defined]
    strategies.__getattr__ = anything.__getattr__  # type: ignore[method-assign]
    for module in (package, strategies):
        module.__spec__ = ModuleSpec(module.__name__, None)  # torch looks for it
    sys.modules |= {"hypothesis": package, "hypothesis.strategies": strategies}
