"""Drivers: how each engine connects, binds a tenant, and reports errors."""
