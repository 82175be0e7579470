"""What runs unattended: the trigger, the exporter and the schedule, with what they share."""
