"""The library in every alfamix image; its floors import only downwards (see docs/architecture.md).

``from alfamix_core import select`` is the call for those who have arrays and need no project: docs/library.md.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alfamix_core.library import Selected, select

__version__ = "0.1.0"
__all__ = ["Selected", "__version__", "select"]


def __getattr__(name: str) -> Any:
    """Load the call when it is first asked for: most images import this package and have no torch."""
    if name in ("Selected", "select"):
        from alfamix_core import library

        return getattr(library, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
