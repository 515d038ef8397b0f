"""Figures of the cache: what it costs, what it saves, and what it never does."""
