"""Measures the server against bare echoes and in-process loops: `python -m bench`."""
