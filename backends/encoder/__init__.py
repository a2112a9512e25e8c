"""Encoders of Hugging Face as folders: text in; vectors, labels or scores out."""
