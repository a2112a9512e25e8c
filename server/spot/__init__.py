"""Machines that are taken away at short notice: the server hears of it, and drains."""
