"""What watches a project: the trigger, the exporter, the schedule, and what they share."""
