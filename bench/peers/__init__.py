"""Triton's server and ours side by side, under one load generator with the same bytes."""
