"""Vision-language encoders: images and texts in, L2-normalised embeddings out."""
