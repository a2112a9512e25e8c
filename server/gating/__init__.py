"""Runs the evaluations that gates ask for: in processes of low priority, against this server."""
