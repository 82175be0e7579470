"""From image files to a trained model and its embeddings."""
