"""Processes that compute one model together."""
