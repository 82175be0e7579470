"""The library in every alfamix image; its floors import only downwards (see docs/architecture.md)."""

__version__ = "0.1.0"
