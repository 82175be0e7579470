"""A self-contained HTML page for a round and one for the project: no requests, no torch, reproducible bytes."""
