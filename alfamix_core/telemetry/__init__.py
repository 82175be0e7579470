"""What leaves the process about its own work: progress, events, measures of a stage."""
