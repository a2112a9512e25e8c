"""Two commits measured against each other in one run: this checkout (new) and any commit (old).

Servers and engines differ; clients, models and the environment are the same.
"""
