"""What a process reports about its own work: events, progress, metrics, and measurements of a stage."""
