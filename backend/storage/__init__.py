"""The store on disk or in a bucket: embeddings, heads, prediction log, project state."""
