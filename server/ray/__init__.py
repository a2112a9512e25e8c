"""Servers as Ray's replicas: placed, restarted and counted by Ray Serve, asked without its proxies.

`group` says what is run, `replica` runs it, `way_in` has requests reach it. Knows no models and no
requests; imports Ray only where Ray runs it.
"""
