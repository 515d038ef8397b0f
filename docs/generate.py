"""Write the tables of the documentation that are facts of the code: ``python docs/generate.py``.

A page marks the place with ``<!-- generated: name -->`` and ``<!-- end -->``. The tests compare each page
with what this program would write, so a table cannot differ from the code. What a table says beyond the
code (what to do about an error, an example of a key) is in ``docs/words.py``.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from pathlib import Path
from typing import Any

from pydantic_core import PydanticUndefined

from router import errors, events, predicates, reasons, retries, tenant_table
from router.cache import refusal, serving
from router.cache.advice import ADVICE
from router.config.models import RouterFile, TenantFile
from router.config.section import Section
from router.config.units import DURATION_PATTERN, SIZE_PATTERN
from router.lexer import Dialect
from router.metrics.reference import reference
from router.retries import Verdict, judge, judge_transaction

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS))
import words  # noqa: E402 - beside this file, which is no package

_PLACE = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """Return a Markdown table."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def escaped(text: str) -> str:
    """Return text in which Markdown sees no HTML."""
    return text.replace("<", "&lt;")


def first_sentence(thing: Any) -> str:
    """Return the first paragraph of a docstring on one line, without reST marks."""
    paragraph = inspect.cleandoc(thing.__doc__).partition("\n\n")[0]
    return escaped(" ".join(paragraph.split()).replace("``", "`"))


# --- reasons ---------------------------------------------------------------------------------------------


def comments(source: str) -> dict[str, str]:
    """Return the trailing comment of each assignment or field in ``source``, by name."""
    pattern = re.compile(r"^\s+(\w+)(?:: [^#\n]+| = [^#\n]+?)  # (.+)$", re.MULTILINE)
    return dict(pattern.findall(source))


def reason_table() -> str:
    """Return every reason with the node that it leads to."""
    said = comments(inspect.getsource(reasons.Reason))
    elsewhere = dict.fromkeys(("read", "declared_read", "read_transaction", "late_replica"), "a replica")
    elsewhere["cached"] = "memory"
    return table(
        ("reason", "goes to", "because"),
        (
            (f"`{reason}`", elsewhere.get(reason, "the primary"), said[reason.name])
            for reason in reasons.Reason
        ),
    )


# --- errors ----------------------------------------------------------------------------------------------


def error_classes() -> Iterator[tuple[type[errors.RouterError], int]]:
    """Yield every class of the tree with its depth, parents first, in the order of the source."""

    def below(parent: type[errors.RouterError], depth: int) -> Iterator[tuple[type[errors.RouterError], int]]:
        yield parent, depth
        for child in parent.__subclasses__():
            if child.__module__ == errors.__name__ and child.__bases__[0] is parent:
                yield from below(child, depth + 1)

    return below(errors.RouterError, 0)


def error_table() -> str:
    """Return the tree of errors with what each means and what to do."""
    rows = []
    for error, depth in error_classes():
        indent = "&nbsp;&nbsp;&nbsp;&nbsp;" * depth
        sent = {"no": "no", "answered": "refused", "unknown": "unknown"}[error.sent.value]
        rows.append(
            (f"{indent}`{error.__name__}`", first_sentence(error), sent, words.ERRORS[error.__name__])
        )
    return table(("error", "meaning", "applied?", "what to do"), rows)


def predicate_table() -> str:
    """Return the predicates with what each tells."""
    found = [(name, value) for name, value in vars(predicates).items() if name.startswith("is_")]
    return table(
        ("predicate", "meaning"), ((f"`{name}(exc)`", first_sentence(value)) for name, value in found)
    )


# --- retries ---------------------------------------------------------------------------------------------

_VERDICTS = {
    Verdict.RAISE: "raised",
    Verdict.AGAIN: "again",
    Verdict.ELSEWHERE: "another node",
    Verdict.PRIMARY: "the primary",
}


def _failures() -> Iterator[tuple[str, list[errors.RouterError]]]:
    for text, names, sent in words.FAILURES:
        made = [getattr(errors, name)("", sent=errors.Sent(sent) if sent else None) for name in names]
        yield f"{text}: {', '.join(f'`{name}`' for name in names)}", made


def _same(answers: Iterable[str]) -> str:
    (answer,) = set(answers)  # one row says one thing: classes that differ need rows of their own
    return answer


def _write_fails(error: errors.RouterError) -> str:
    """Say what becomes of a write, as ``Executor`` does: a write without an answer is raised as such."""
    if retries.outcome_unknown(error):
        error = errors.CommitOutcomeUnknown("")
        return f"{_VERDICTS[judge(error, idempotent=False, on_replica=False)]} as `CommitOutcomeUnknown`"
    return _VERDICTS[judge(error, idempotent=False, on_replica=False)]


def statement_retry_table() -> str:
    """Return what follows the failure of one statement outside of a transaction."""
    return table(
        ("failure", "read on a replica", "read on the primary", "write"),
        (
            (
                text,
                _same(_VERDICTS[judge(error, idempotent=True, on_replica=True)] for error in made),
                _same(_VERDICTS[judge(error, idempotent=True, on_replica=False)] for error in made),
                _same(_write_fails(error) for error in made),
            )
            for text, made in _failures()
        ),
    )


def transaction_retry_table() -> str:
    """Return which failures let ``session.run`` run its function again."""
    unknown = errors.CommitOutcomeUnknown("")
    rows = [
        (text, _same("yes" if judge_transaction(error, commit_sent=False) else "no" for error in made))
        for text, made in _failures()
    ]
    again = "yes" if judge_transaction(unknown, commit_sent=True) else "no"
    rows.append(("the commit was sent and got no answer: `CommitOutcomeUnknown`", again))
    return table(("failure", "run again?"), rows)


# --- events and metrics ----------------------------------------------------------------------------------


def event_classes() -> list[type[events.Event]]:
    """Return the event classes in the order of the source."""
    found = [value for value in vars(events).values() if isinstance(value, type)]
    return [
        value for value in found if issubclass(value, events.Event) and value.__module__ == events.__name__
    ]


def event_tables() -> str:
    """Return each event with its own fields; those of its base are listed with the base."""
    parts = []
    for event in event_classes():
        source = inspect.getsource(event)
        said = comments(source)
        base = event.__bases__[0]
        inherits = "" if base is object else f" Has the fields of `{base.__name__}` as well."
        parts.append(f"### {event.__name__}\n\n{first_sentence(event)}{inherits}\n")
        own = re.findall(r"^    (\w+): ([^#=\n]+?)(?: = .*?)?(?:  #.*)?$", source, re.MULTILINE)
        rows = [
            (f"`{name}`", f"`{kind}`", said.get(name, "")) for name, kind in own if "ClassVar" not in kind
        ]
        if rows:
            parts.append(table(("field", "type", "meaning"), rows) + "\n")
    return "\n".join(parts).rstrip()


def metric_table() -> str:
    """Return every metric with its labels, in the order of the exposition."""
    rows = []
    for family in reference():
        name = f"`{family.name}{'_total' if family.type == 'counter' else ''}`"
        labels = ", ".join(f"`{label}`" for label in family.labels)
        rows.append((name, family.type, family.documentation, labels))
    return table(("metric", "type", "meaning", "labels"), rows)


# --- cache -----------------------------------------------------------------------------------------------


def uncached_table() -> str:
    """Return every reason that keeps a read from the cache, where it is counted, and what to do."""
    counted: dict[str, list[str]] = {}
    for where, kinds in (
        ("bypass", (refusal.Bypass, refusal.Refusal)),
        ("refusal", (serving.Refusal,)),
        ("unstored", (refusal.Unstored,)),
    ):
        for reason in (each for kind in kinds for each in kind):
            counted.setdefault(reason, []).append(where)
    counted[serving.Refusal.UNKNOWN] = ["bypass"]  # a flow without tables looks nothing up
    return table(
        ("reason", "counted as", "what it means", "what to do"),
        (
            (f"`{reason}`", ", ".join(counted.get(reason, ())), advice.fact, advice.remedy)
            for reason, advice in ADVICE.items()
        ),
    )


# --- configuration ---------------------------------------------------------------------------------------


def sections(model: type[Section]) -> Iterator[type[Section]]:
    """Yield ``model`` and every section inside of it, each once, outer ones first."""
    waiting, seen = [model], set()
    while waiting:
        section = waiting.pop(0)
        if section in seen:
            continue
        seen.add(section)
        yield section
        for field in section.model_fields.values():
            waiting += _sections_in(field.annotation)


def _sections_in(annotation: Any) -> list[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [found for part in getattr(annotation, "__args__", ()) for found in _sections_in(part)]


def kind(schema: dict[str, Any], definitions: dict[str, Any]) -> str:
    """Return the type of a key in words, from its JSON Schema."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        target = definitions[name]
        return kind(target, definitions) if "enum" in target else "section"
    choices = [each for each in schema.get("anyOf", ()) if each.get("type") != "null"]
    if choices:
        return kind(choices[0], definitions)
    if "enum" in schema:
        return ", ".join(f"`{each}`" for each in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if schema.get("pattern") == DURATION_PATTERN:
        return "duration"
    if schema.get("pattern") == SIZE_PATTERN:
        return "size"
    of = schema.get("type")
    if of == "array":
        return f"list: {kind(schema['items'], definitions)}"
    if of == "object":
        values = [schema.get("additionalProperties"), *schema.get("patternProperties", {}).values()]
        return f"mapping: name to {kind(next(each for each in values if each), definitions)}"
    if isinstance(of, list):
        return "text, number, true or false"
    return {"integer": "whole number", "number": "number"}.get(
        str(of), "name" if "pattern" in schema else "text"
    )


def keys(model: type[Section]) -> Iterator[tuple[str, Any, str]]:
    """Yield each key of a section as written, its field, and its type in words."""
    schema = model.model_json_schema(by_alias=True)
    for name, field in model.model_fields.items():
        key = field.alias or name
        yield key, field, kind(schema["properties"][key], schema.get("$defs", {}))


def _default(field: Any) -> str:
    if field.is_required():
        return "required"
    value = field.default
    if value is None or value is PydanticUndefined or isinstance(value, Section) or value in ((), {}):
        return ""
    return f"`{value.value if isinstance(value, Enum) else value}`"


def key_tables(model: type[Section]) -> str:
    """Return the keys of ``model`` and of the sections in it."""
    parts = []
    for section in sections(model):
        if section is not model and section in _shown_before(model):
            continue
        title = words.SECTIONS[section.__name__]
        rows = [
            (
                f"`{key}`",
                kind,
                _default(field),
                escaped(field.description or ""),
                f"`{words.KEYS[section.__name__][key]}`",
            )
            for key, field, kind in keys(section)
        ]
        parts.append(f"### {title}\n\n{first_sentence(section)}\n\n")
        parts.append(table(("key", "type", "default", "meaning", "example"), rows) + "\n\n")
    return "".join(parts).rstrip()


def _shown_before(model: type[Section]) -> set[type[Section]]:
    return set(sections(RouterFile)) if model is TenantFile else set()


# --- tenants ---------------------------------------------------------------------------------------------


def tenant_tables() -> str:
    """Return how the table of tenants is made on each engine."""
    parts = []
    for name, dialect in (
        ("PostgreSQL", Dialect.POSTGRESQL),
        ("MySQL and MariaDB", Dialect.MYSQL),
        ("SQLite", Dialect.SQLITE),
    ):
        parts.append(f"### {name}\n\n```sql\n" + ";\n".join(tenant_table.ddl(dialect)) + ";\n```")
    return "\n\n".join(parts)


# --- faults ----------------------------------------------------------------------------------------------

_CASES = re.compile(r"\(fault cases? ([0-9, ]+)\)")
_TEST = re.compile(r'^(?:async )?def (test_\w+)\(.*?\) -> None:\n    """(.*?)"""', re.DOTALL | re.MULTILINE)


def tests_of_faults() -> dict[int, list[str]]:
    """Return the tests that name each fault in their docstring, as file and name."""
    found: dict[int, list[str]] = {}
    for file in sorted((DOCS.parent / "tests").glob("test_*.py")):
        for name, text in _TEST.findall(file.read_text(encoding="utf-8")):
            for numbers in _CASES.findall(text):
                for number in numbers.split(","):
                    found.setdefault(int(number), []).append(f"{file.stem}::{name}")
    return found


def fault_table() -> str:
    """Return every fault, what requests see of it, and the tests that provoke it."""
    tests = tests_of_faults()
    rows = (
        (str(number), escaped(what), escaped(seen), " ".join(f"`{each}`" for each in tests.get(number, ())))
        for number, (what, seen) in words.FAULTS.items()
    )
    return table(("", "fault", "what requests see", "tests"), rows)


# --- pages -----------------------------------------------------------------------------------------------

PARTS: dict[str, Callable[[], str]] = {
    "reasons": reason_table,
    "errors": error_table,
    "predicates": predicate_table,
    "retries": statement_retry_table,
    "transactions": transaction_retry_table,
    "events": event_tables,
    "metrics": metric_table,
    "uncached": uncached_table,
    "faults": fault_table,
    "router_file": lambda: key_tables(RouterFile),
    "tenant_tables": tenant_tables,
    "tenant_file": lambda: key_tables(TenantFile),
}


def rendered(page: str) -> str:
    """Return the text of a page with its generated parts as the code has them now."""
    return _PLACE.sub(lambda found: f"{found[1]}\n{PARTS[found[2]]()}\n\n{found[3]}", page)


def main() -> None:
    """Rewrite the generated parts of all pages."""
    for page in sorted(DOCS.rglob("*.md")):
        text = page.read_text()
        if (made := rendered(text)) != text:
            page.write_text(made)
            print(f"written: {page.relative_to(DOCS)}")


if __name__ == "__main__":
    main()
