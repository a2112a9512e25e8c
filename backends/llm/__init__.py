"""The LLM engine: continuous batching over a paged key/value cache.

Import from its modules; `sequence`, `blocks`, `prefix` and `scheduler` are pure Python.
"""
