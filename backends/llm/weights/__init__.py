"""Weights as files hold them."""
