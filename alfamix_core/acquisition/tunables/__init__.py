"""What a user may set of each strategy: one file per strategy that has tunables, without torch."""
