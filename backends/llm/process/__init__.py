"""The engine's process, and what crosses its border."""
