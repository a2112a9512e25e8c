"""Attention over the paged cache, one way of computing it per module."""
