"""The engine's loop, put together from its rooms."""
