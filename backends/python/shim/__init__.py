"""Modules that user code imports by their own names."""
