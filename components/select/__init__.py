"""The select stage."""
