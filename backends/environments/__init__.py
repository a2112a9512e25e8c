"""Environments that models bring or ask for: unpacked, installed, and kept for the next time."""
