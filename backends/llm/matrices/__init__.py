"""Matrices in the formats of files: one class a format."""
