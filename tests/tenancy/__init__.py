"""What many tenants cost, and what they notice of each other: ``make tenancy``."""
