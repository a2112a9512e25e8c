"""What only C can do: a handler for a signal that Python's own may not handle."""
