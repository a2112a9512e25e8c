"""Traces of requests: which ones, what is noted of them, and where that goes."""
