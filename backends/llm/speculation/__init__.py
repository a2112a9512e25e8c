"""Tokens that are guessed before they are computed, so that one step can tell several."""
