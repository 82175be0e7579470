"""The project: what survives from round to round, and the rules by which it changes (docs/project-layout.md)."""
