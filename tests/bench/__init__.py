"""Measure the router beside the bare drivers, the pools and the proxies: ``python -m tests.bench --help``."""
