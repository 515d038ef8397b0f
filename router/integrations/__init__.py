"""Ties to other libraries, each imported only by who uses it."""
