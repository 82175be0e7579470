"""The quality of a model, and the learning curve of a campaign."""
