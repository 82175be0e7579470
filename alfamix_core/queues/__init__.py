"""Labelling queues: where questions go, and how answers come back as label events."""
