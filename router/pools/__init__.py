"""Pools: who holds which connection, for how long, and in what state it comes back."""
