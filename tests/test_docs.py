"""What the documentation says is so: code runs, YAML loads, links lead somewhere, tables are true."""

import ast
import asyncio
import importlib.util
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, NamedTuple

import pytest
import yaml
from pydantic import TypeAdapter

from router import Router, load, parse
from router.config.models import RouterFile, TenantFile
from router.config.section import Section

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted(DOCS.rglob("*.md"))]

_FENCE = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\[[^\]\n]*\]\(([^)\s]+)\)")


def _id(page: Path) -> str:
    return str(page.relative_to(ROOT))


class Block(NamedTuple):
    """Hold a fenced block of a page, and the line that its code begins at."""

    language: str
    info: str
    code: str
    line: int


def blocks(page: Path, language: str) -> list[Block]:
    """Return the page's blocks in one language."""
    text = page.read_text()
    found = [
        Block(match[1], match[2].strip(), match[3], text.count("\n", 0, match.start()) + 2)
        for match in _FENCE.finditer(text)
    ]
    return [block for block in found if block.language == language]


def _generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def generate() -> Iterator[ModuleType]:
    """Load docs/generate.py, and take what it put on the path away again."""
    path = list(sys.path)
    yield _generator()
    sys.path[:] = path


# --- Python ----------------------------------------------------------------------------------------------


def _tables() -> list[str]:
    """Return the statements that docs/index.md promises to have run before a snippet."""
    (block,) = blocks(DOCS / "index.md", "sql")
    return [sql for sql in block.code.split(";\n") if sql.strip()]


@asynccontextmanager
async def _opened(folder: Path) -> Any:
    config = parse(
        {
            "version": 1,
            "clusters": {"main": {"engine": "sqlite", "primary": {"path": str(folder)}}},
            "tokens": {"keys": ["for-the-pages-only"]},
            "tenants": {
                "acme": {
                    "cluster": "main",
                    "isolation": "database",
                    "database": "acme",
                    "schemas": {"analytics": "reports"},
                },
                "globex": {"cluster": "main", "isolation": "database", "database": "globex"},
            },
        }
    )
    async with Router.open(config) as router:
        for tenant in ("acme", "globex"):
            for sql in _tables():
                await router.execute(sql, tenant=tenant)
        yield router


def _compiled(block: Block, page: Path) -> Any:
    tree = ast.parse(block.code)
    ast.increment_lineno(tree, block.line - 1)
    return compile(tree, str(page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def _run(page: Path, folder: Path) -> int:
    """Run the page's blocks in one name space; return how many ran."""
    names: dict[str, Any] = {"__name__": "__main__"}
    count = 0
    with asyncio.Runner() as runner:
        context = _opened(folder)
        router = runner.run(context.__aenter__())
        names |= {"router": router, "session": router.session("acme")}
        try:
            for block in blocks(page, "python"):
                if block.info == "no-run":
                    continue
                code = _compiled(block, page)
                if code.co_flags & inspect.CO_COROUTINE:
                    runner.run(eval(code, names))
                else:
                    exec(code, names)  # outside of any loop, so that a whole program may start its own
                count += 1
        finally:
            runner.run(context.__aexit__(None, None, None))
    return count


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=_id)
def test_every_python_block_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a reader copies works, block after block."""
    monkeypatch.chdir(tmp_path)
    assert _run(page, tmp_path / "databases") > 0


def test_the_first_example_prints_what_the_readme_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The output under the example in the README is that of the example."""
    monkeypatch.chdir(tmp_path)
    (shown,) = blocks(ROOT / "README.md", "text")
    _run(ROOT / "README.md", tmp_path / "databases")
    assert capsys.readouterr().out == shown.code


def test_blocks_that_are_not_run_are_few() -> None:
    """A block is excused only for the lack of a server."""
    excused = [block for page in PAGES for block in blocks(page, "python") if block.info == "no-run"]
    assert len(excused) <= 3
    assert {block.info for page in PAGES for block in blocks(page, "python")} <= {"", "no-run"}


# Each program, and a line that it prints.
PROGRAMS = {
    "quickstart.py": "DELETE FROM plans: primary, because write",
    "transfer.py": "total 5000 cents, books agree: True",
    "shop/main.py": "left: Product(id=1, name='chair', stock=6) Product(id=2, name='table', stock=1)",
    "listeners.py": "failures of the broken listener: 1",
    "tracing.py": "the trace is named by an exemplar: True",
}


@pytest.mark.parametrize(("program", "expected"), PROGRAMS.items())
def test_every_example_runs(program: str, expected: str, tmp_path: Path) -> None:
    """Each example does what it says, in an interpreter of its own, where every warning is an error."""
    done = subprocess.run(
        [sys.executable, "-W", "error", str(DOCS / "examples" / program)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert expected in done.stdout.splitlines()


def test_no_example_is_left_out() -> None:
    """A new example is run by the test above and named by the index."""
    programs = {str(path.relative_to(DOCS / "examples")) for path in (DOCS / "examples").rglob("*.py")}
    assert set(PROGRAMS) == programs - {"shop/domain.py", "shop/adapters.py"}
    index = (DOCS / "index.md").read_text()
    assert all(f"examples/{program}" in index for program in programs)


def test_the_domain_example_imports_no_database() -> None:
    """The domain of the shop knows neither router nor any driver."""
    tree = ast.parse((DOCS / "examples" / "shop" / "domain.py").read_text())
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported == {"__future__", "contextlib", "dataclasses", "typing"}
    assert not any(isinstance(node, ast.Import) for node in ast.walk(tree))


# --- YAML ------------------------------------------------------------------------------------------------


def _configurations(page: Path) -> Iterator[dict[str, str]]:
    """Yield the files of each configuration on a page: router.yaml and the tenants that follow it."""
    files: dict[str, str] = {}
    for block in blocks(page, "yaml"):
        first = block.code.partition("\n")[0]
        match = re.fullmatch(r"# config/(router\.yaml|tenants/[a-z]+\.yaml)", first)
        assert match, f"{page.name}:{block.line} does not begin with the name of its file"
        if match[1] == "router.yaml" and files:
            yield files
            files = {}
        files[match[1]] = block.code
    if files:
        yield files


_SECRETS = (
    *("APP_PASSWORD", "APP_RO_PASSWORD", "ORDERS_PASSWORD", "ROUTER_TOKEN_KEY"),
    *("CACHE_PASSWORD", "CACHE_KEY", "CONSOLE_TOKEN"),
)


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "yaml")], ids=_id)
def test_every_yaml_block_loads(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each configuration on a page is accepted by the loader without a warning but that it has no tenants."""
    for name in _SECRETS:
        monkeypatch.setenv(name, "from the environment")
    for number, files in enumerate(_configurations(page)):
        folder = tmp_path / str(number)
        for name in ("tenants", "secrets", "certificates"):
            (folder / name).mkdir(parents=True)
        for name in ("secrets/app", "secrets/app_ro", "secrets/token-key-before", "certificates/ca.pem"):
            (folder / name).write_text("from a file of the page\n")
            (folder / name).chmod(0o600)
        for name, text in files.items():
            (folder / name).write_text(text)
        config = load(folder)
        assert len(config.tenants) == len(files) - 1
        assert [each.message for each in config.warnings if each.message != "there are no tenants"] == []


def _key_cases() -> list[Any]:
    made = _generator()
    shown = [*made.sections(RouterFile), TenantFile]
    return [
        pytest.param(section, key, field, id=f"{section.__name__}.{key}")
        for section in shown
        for key, field, _ in made.keys(section)
    ]


@pytest.mark.parametrize(("section", "key", "field"), _key_cases())
def test_the_example_of_every_key_is_valid(
    section: type[Section], key: str, field: Any, generate: ModuleType
) -> None:
    """The example in the table of keys is a value that the key takes."""
    value = yaml.safe_load(generate.words.KEYS[section.__name__][key])
    kind: Any = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
    TypeAdapter(kind).validate_python(value, context=Path())


# --- links and tables ------------------------------------------------------------------------------------


def _anchors(page: Path) -> set[str]:
    text = _FENCE.sub("", page.read_text())
    heads = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=_id)
def test_every_link_leads_somewhere(page: Path) -> None:
    """A link names a file of the project, and a heading in it."""
    for target in _LINK.findall(_FENCE.sub("", page.read_text())):
        assert "://" not in target, f"{page.name} links outside: {target}"
        name, _, anchor = target.partition("#")
        linked = (page.parent / name).resolve() if name else page
        assert linked.is_file(), f"{page.name} links to {name}, which is not there"
        assert not anchor or anchor in _anchors(linked), f"{page.name} links to {target}: no such heading"


def test_every_page_is_in_the_index() -> None:
    """No page is hidden."""
    index = (DOCS / "index.md").read_text()
    pages = {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")} - {"index.md"}
    assert {page for page in pages if f"]({page})" not in index} == set()


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=_id)
def test_generated_tables_are_as_the_code_is(page: Path, generate: ModuleType) -> None:
    """Reasons, errors, events, metrics and keys in the pages are those of the code: run docs/generate.py."""
    assert generate.rendered(page.read_text()) == page.read_text()


def test_every_generated_part_is_on_some_page(generate: ModuleType) -> None:
    """None of the tables can be dropped from the pages unnoticed."""
    text = "".join(page.read_text() for page in DOCS.rglob("*.md"))
    assert set(re.findall(r"<!-- generated: (\w+) -->", text)) == set(generate.PARTS)


def test_the_advice_has_no_entries_too_many(generate: ModuleType) -> None:
    """Words about an error or key that is gone are removed with it."""
    words = generate.words
    assert set(words.ERRORS) == {error.__name__ for error, _ in generate.error_classes()}
    for section in (*generate.sections(RouterFile), TenantFile):
        assert set(words.KEYS[section.__name__]) == {key for key, _, _ in generate.keys(section)}


def test_the_tree_of_errors_is_complete(generate: ModuleType) -> None:
    """Every error class of the code is in the table once."""
    from router import errors

    public = {
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, errors.RouterError)
    }
    assert sorted(error.__name__ for error, _ in generate.error_classes()) == sorted(
        error.__name__ for error in public
    )
