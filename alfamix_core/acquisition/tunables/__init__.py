"""The tunables that a user may set: one file per strategy that has any, without torch."""
