"""Log lines, what of them is shown, and how often an outage may tell."""
