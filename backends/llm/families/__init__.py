"""Families of models: what their layers are made of and what their weights are called. No torch."""
