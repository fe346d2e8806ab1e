"""Tasks in, predictions out: embeddings, model versions, scores."""
