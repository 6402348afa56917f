"""A CLIP as an encoder, and what it is used for: classification, indexing and search."""
