"""Whether tenants are apart: the figures of ``make leaks``; tests/test_tenancy_leaks.py has short forms."""
