"""Requests that belong together: the sequence batcher."""
