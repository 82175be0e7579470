"""Image files in, a trained model and its embeddings out."""
