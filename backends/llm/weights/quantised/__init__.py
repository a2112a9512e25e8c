"""Quantised weights of Hugging Face files, brought into the formats of `matrices`."""
