"""Rules of router.config.reader: strict YAML, with places, never an exception and never a hang."""

from __future__ import annotations

import time

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from router.config.reader import MAX_BYTES, read, read_string


def told(text: str) -> list[tuple[int, int, str]]:
    return [(p.line, p.column, p.message) for p in read_string(text, "x.yaml").problems]


def test_plain_data_with_places():
    """Values are typed by YAML 1.2's core rules; every key and value has its line and column from 1."""
    document = read_string(
        "a: 1\nb:\n  - x: 'no'\n    z: [true, null, 1.5, -3, 2e3]\nc: plain text # remark\n", "x"
    )
    assert document.problems == []
    assert document.data == {
        "a": 1,
        "b": [{"x": "no", "z": [True, None, 1.5, -3, 2000.0]}],
        "c": "plain text",
    }
    assert document.places["b", 0, "x"] == (3, 8, 3, 5)
    assert document.places["b", 0, "z", 2] == (4, 21, 4, 21)
    assert document.places["c",] == (5, 4, 5, 1)


@pytest.mark.parametrize(
    "text",
    ["no", "No", "NO", "yes", "on", "off", "OFF", "y", "N", "22:22", "1:2:3", "012", "-012", "0o12", "0x1F",
     "0b1", "1_000", "2024-01-01", "2024-01-01 10:00:00", ".inf", "-.INF", ".nan", "1e999", "9" * 30,
     "1__0.5"],
)  # fmt: skip
def test_surprises_are_refused_where_they_stand(text):
    """Plain text that YAML versions read differently is refused as value, key and item; quoted it is text."""
    assert [place[:2] for place in told(f"a: {text}\n")] == [(1, 4)]
    assert [place[:2] for place in told(f"a:\n  {text}: b\n")] == [(2, 3)]
    assert [place[:2] for place in told(f"a: [{text}]\n")] == [(1, 5)]
    assert read_string(f"a: '{text}'\n", "x").data == {"a": text}


def test_the_remedy_for_no_says_how_to_quote_it():
    """The classic country code is answered in its quoted form; a number is not: it may be a password."""
    (problem,) = read_string("tenant: no\n", "x").problems
    assert '"no"' in problem.remedy
    (problem,) = read_string("password: 012345\n", "x").problems
    assert "012345" not in str(problem)


@pytest.mark.parametrize(
    "text", ["db-1", "1.2.3.4", "10.0.0.1", "5s", "a:b", "::1", "nope", "v1.0", "-", "+x", "1-2", "~x"]
)
def test_ordinary_text_is_text(text):
    """Hosts, addresses, durations and the like need no quotes."""
    if text == "-":
        return
    assert read_string(f"a: {text}\n", "x").data == {"a": text}


@pytest.mark.parametrize(
    ("text", "line", "column", "words"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, 1, "duplicate"),
        ("a: {b: 1, b: 2}\n", 1, 11, "duplicate"),
        ("a: &x 1\n", 1, 4, "anchor"),
        ("a: *x\n", 1, 4, "alias"),
        ("a: 1\nb:\n  <<: {c: 1}\n", 3, 3, "merge"),
        ("a: !!str 1\n", 1, 4, "tag"),
        ("a: !!python/object/apply:os.system [x]\n", 1, 4, "tag"),
        ("a: !x 1\n", 1, 4, "tag"),
        ("a:\n\tb: 1\n", 2, 1, "tab"),
        ("a: 'x\ty'\n", 1, 6, "tab"),
        ("1: a\n", 1, 1, "key is not text"),
        ("true: a\n", 1, 1, "key is not text"),
        ("a: {[1]: b}\n", 1, 5, "key is not text"),
        ("? {a: 1}\n: b\n", 1, 3, "key is not text"),
        ("a: 1\0\n", 1, 5, "U+0000"),
        ("a: \u2028\n", 1, 4, "U+2028"),
        ("a: \ud800\n", 1, 4, "U+D800"),
        ("a: 1\n---\nb: 2\n", 2, 1, "second document"),
        ("%YAML 1.1\n---\na: 1\n", 1, 1, "directive"),
        ("a: [1\n", 2, 1, "not YAML"),
        ("a: b: c\n", 1, 5, "not YAML"),
        ("a: 1\n b: 2\n", 2, 3, "not YAML"),
        ("", 0, 0, "empty"),
        ("# only a remark\n", 0, 0, "empty"),
    ],
)  # fmt: skip
def test_what_is_refused_is_told_with_its_place(text, line, column, words):
    """Each refused construct is one problem at the line and column where it stands."""
    assert [(a, b) for a, b, _ in told(text)] == [(line, column)]
    assert words in told(text)[0][2]


def test_several_mistakes_are_told_at_once():
    """Reading goes on after a mistake that leaves the structure clear."""
    assert [place[:2] for place in told("a: no\nb: &x 1\na: 2\nc: [012, *y]\n")] == [
        (1, 4),
        (2, 4),
        (3, 1),
        (4, 5),
        (4, 10),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "[" * 2000 + "]" * 2000,
        "[" * 500_000,
        "{a: " * 100_000,
        "".join("  " * n + "a:\n" for n in range(2000))[:1_000_000],
        "- " * 300_000,
        "? " * 300_000,
        "a: &a [x]\n" + "".join(f"a{n}: &a{n} [*a, *a, *a, *a]\n" for n in range(1000)),
        "no: no\n" * 100_000,
        "'" * 900_000,
        "a: " + "9" * 900_000,
        "a: " + "1" * 300 + ":" + "1:" * 200_000 + "1",
        "a: " + "0_" * 400_000 + "x",
        "!" * 900_000,
        "a: |\n" + " x\n" * 300_000,
    ],
    ids=range(14),
)
def test_hostile_files_end_soon(text):
    """Depth, bombs and floods end within two seconds in data or a bounded number of problems."""
    start = time.monotonic()
    document = read_string(text, "x")
    assert time.monotonic() - start < 2
    assert document.data is not None or document.problems
    assert len(document.problems) <= 100


def test_depth_is_bounded():
    """Twenty levels are read, the next is refused at its place."""
    assert told("a: " + "[" * 19 + "]" * 19) == []
    assert told("a: " + "[" * 20 + "]" * 20) == [(1, 23, "nesting is deeper than 20 levels")]


def test_files_that_are_none(tmp_path):
    """Missing, oversize, undecodable, unreadable and odd files are told as a whole, without a line."""
    (tmp_path / "big").write_bytes(b"#" * (50 << 20))
    (tmp_path / "latin").write_bytes("a: é".encode("latin-1"))
    (tmp_path / "utf16").write_bytes("a: b".encode("utf-16"))
    (tmp_path / "edge").write_bytes(b"a: b #" + b"x" * (MAX_BYTES - 6))
    for name, words in {
        "none": "cannot be read",
        "big": "larger",
        "latin": "UTF-8",
        "utf16": "UTF-8",
        "": "regular",
    }.items():
        (problem,) = read(str(tmp_path / name), name).problems
        assert words in problem.message and (problem.file, problem.line) == (name, 0) and problem.remedy
    assert read(str(tmp_path / "edge"), "edge").data == {"a": "b"}


def test_a_byte_order_mark_is_dropped(tmp_path):
    """Editors that write one do no harm; a second one is refused."""
    (tmp_path / "a").write_bytes(b"\xef\xbb\xbfa: no")
    assert [(p.line, p.column) for p in read(str(tmp_path / "a"), "a").problems] == [(1, 4)]
    (tmp_path / "a").write_bytes(b"\xef\xbb\xbf\xef\xbb\xbfa: b")
    assert "U+FEFF" in read(str(tmp_path / "a"), "a").problems[0].message


TOKENS = st.sampled_from(
    [*"abz019:-?,[]{}&*!|>'\"%@`#~<= \n.", "\n  ", ": ", "- ", "no", "<<", "---", "...", "null", "\t", "é"]
)


@given(st.one_of(st.text(max_size=60), st.lists(TOKENS, max_size=30).map("".join)))
def test_any_text_gives_data_or_problems(text):
    """The reader never raises; with no problem its data is plain, and equal to what PyYAML's core reads."""
    document = read_string(text, "x")
    if document.problems:
        return
    plain = yaml.load(text, Loader=getattr(yaml, "CBaseLoader", yaml.BaseLoader))  # the two differ over "|#"
    assert shape(document.data) == shape(plain)


def shape(data: object) -> object:
    """Return the structure with all scalars alike, since BaseLoader types none of them."""
    if isinstance(data, dict):
        return {str(key): shape(value) for key, value in data.items()}
    return [shape(value) for value in data] if isinstance(data, list) else "scalar"


def test_the_pure_parser_tells_the_same(monkeypatch):
    """Without libyaml the same files give the same data and places."""
    import builtins
    import importlib

    from router.config import reader

    original = builtins.__import__

    def without_libyaml(name, *args, **kwargs):
        if name == "yaml.cyaml":
            raise ImportError(name)
        return original(name, *args, **kwargs)

    text = "a: {b: [1, 'x', no]}\nc: &x 1\nc: |\n  text\n"
    fast = read_string(text, "x")
    monkeypatch.setattr(builtins, "__import__", without_libyaml)
    try:
        slow = importlib.reload(reader).read_string(text, "x")
    finally:
        monkeypatch.undo()
        importlib.reload(reader)
    assert (slow.data, slow.places, slow.problems) == (fast.data, fast.places, fast.problems)
