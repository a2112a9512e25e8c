"""Jinja templates that strangers write: run in a sandbox, with limits."""
