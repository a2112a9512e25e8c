"""The metrics page: what it shows, and the text of it."""
