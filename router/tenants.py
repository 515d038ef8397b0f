"""The catalog: what (tenant, schema) resolves to. Unknown names are errors, never a default."""
