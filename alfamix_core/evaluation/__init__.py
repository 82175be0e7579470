"""How good a model is, and how fast a campaign learns."""
