"""Which samples a round asks about: the strategy prepared with the round's model, and the rules of a batch."""
