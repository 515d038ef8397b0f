"""Route (tenant, schema, statement) to the right database connection."""
