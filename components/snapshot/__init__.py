"""The snapshot stage."""
