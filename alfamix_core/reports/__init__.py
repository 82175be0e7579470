"""One self-contained HTML file for a round and one for the project: no request, no torch, the same bytes each time."""
