"""Measurements of the project: none of them is a test."""
