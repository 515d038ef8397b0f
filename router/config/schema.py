"""The JSON Schemas of the files, for editors that complete and check them."""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from router.config.models import RouterFile, TenantFile
from router.config.section import Section


def json_schema() -> dict[str, dict[str, Any]]:
    """Return the JSON Schema (draft 2020-12) of ``router.yaml`` and, under ``tenant``, of a tenant's file."""
    files: dict[str, type[Section]] = {"router.yaml": RouterFile, "tenant": TenantFile}
    return {
        name: {"$schema": GenerateJsonSchema.schema_dialect, **model.model_json_schema(by_alias=True)}
        for name, model in files.items()
    }
