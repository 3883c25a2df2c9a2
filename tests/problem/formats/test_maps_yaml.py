from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from eplb_gap.problem import InputError
from eplb_gap.problem.formats.containers.yaml_text import MAX_DEPTH, parse_yaml


def parse(folder: Path, content: str) -> Any:
    path = folder / "file.yaml"
    path.write_text(content)
    return parse_yaml(path, 1 << 16)


def refusal(folder: Path, content: str) -> str:
    with pytest.raises(InputError) as caught:
        parse(folder, content)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(params=["libyaml", "pure Python"])
def either_parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "pure Python":
        monkeypatch.delattr(yaml, "CSafeLoader", raising=False)


WORDS = st.text("abcdefghij_", min_size=1, max_size=6).filter(lambda word: yaml.safe_load(word) == word)
NUMBERS = st.integers(-(10**18) + 1, 10**18 - 1)
DOCUMENTS = st.recursive(
    WORDS | NUMBERS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS | NUMBERS, inner, max_size=4),
    max_leaves=12,
)


@given(DOCUMENTS, st.sampled_from([True, False, None]))
def test_what_pyyaml_writes_is_read(tmp_path_factory: pytest.TempPathFactory, document: Any, flow: bool | None) -> None:
    class Plain(yaml.SafeDumper):
        def ignore_aliases(self, _data: Any) -> bool:
            return True

    content = yaml.dump(document, Dumper=Plain, default_flow_style=flow)
    assert parse(tmp_path_factory.mktemp("yaml"), content) == document


@pytest.mark.usefixtures("either_parser")
@pytest.mark.parametrize(
    ("scalar", "value"),
    [
        ("0", 0),
        ("-5", -5),
        ("288", 288),
        ("017", "017"),
        ("0o17", "0o17"),
        ("0x1f", "0x1f"),
        ("0b11", "0b11"),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("+5", "+5"),
        ("-0", "-0"),
        ("1.0", "1.0"),
        ("1e3", "1e3"),
        (".inf", ".inf"),
        ("true", "true"),
        ("null", "null"),
        ("~", "~"),
        ("2001-01-01", "2001-01-01"),
        ("'7'", "7"),
        ('"7"', "7"),
        ("9" * 18, 10**18 - 1),
        ("9" * 5000, "9" * 5000),
        ("٣", "٣"),  # a digit to int(), no digit to a reader of maps
    ],
)
def test_a_scalar_is_a_plain_decimal_integer_or_a_string(tmp_path: Path, scalar: str, value: Any) -> None:
    found = parse(tmp_path, f"key: {scalar}\n{scalar}: key\n" if len(scalar) < 100 else f"key: {scalar}\n")
    assert found["key"] == value
    assert type(found["key"]) is type(value)
    assert len(scalar) >= 100 or list(found)[1] == value


@pytest.mark.usefixtures("either_parser")
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: &x [1]\nb: *x\n", "line 1: anchors and aliases are not read"),
        ("a: &x 1\n", "line 1: anchors and aliases are not read"),
        ("a: 1\nb: &x {c: 1}\n", "line 2: anchors and aliases are not read"),
        ("&x a: 1\n", "line 1: anchors and aliases are not read"),
        ("a: !!python/object/apply:os.system [ls]\n", "line 1: tags are not read"),
        ("a: !!int '3'\n", "line 1: tags are not read"),
        ("!mine\na: 1\n", "tags are not read"),
        ("a: 1\na: 2\n", "line 2: key 'a' comes twice"),
        ("3: 1\n3: 2\n", "line 2: key 3 comes twice"),
        ("? [1, 2]\n: 3\n", "line 1: a collection as a key"),
        ("a: 1\n---\nb: 2\n", "line 2: a second document begins"),
        ("# only a comment\n", "there is no document"),
        ("[" * 100 + "]" * 100, f"line 1: nested beyond depth {MAX_DEPTH}"),
        ("{a: " * 10_000, f"line 1: nested beyond depth {MAX_DEPTH}"),
        ("- " * 5000 + "1\n", f"line 1: nested beyond depth {MAX_DEPTH}"),
        ("a: [1, 2\n", "is no YAML"),
        ("a: 'open\n", "is no YAML"),
        ("a:\n\t- 1\n", "is no YAML"),
        ("%YAML 9.9\n---\na: 1\n", "is no YAML"),
        ("a: \x07\n", "is no YAML"),
        ('a: "\\UFFFFFFFF"\n', "is no YAML"),
    ],
)
def test_everything_else_is_refused_where_it_stands(tmp_path: Path, content: str, message: str) -> None:
    assert message in refusal(tmp_path, content)


def test_ten_lines_of_aliases_do_not_become_gigabytes(tmp_path: Path) -> None:
    lines = ["a0: &a0 [" + "x, " * 9 + "x]"]
    lines += [f"a{level}: &a{level} [" + f"*a{level - 1}, " * 9 + f"*a{level - 1}]" for level in range(1, 10)]
    assert "anchors and aliases are not read" in refusal(tmp_path, "\n".join(lines))


def test_a_merge_key_is_a_key_like_any_other(tmp_path: Path) -> None:
    assert parse(tmp_path, "<<: {a: 1}\nb: 2\n") == {"<<": {"a": 1}, "b": 2}


def test_depth_up_to_the_limit_is_read(tmp_path: Path) -> None:
    assert parse(tmp_path, "[" * MAX_DEPTH + "]" * MAX_DEPTH) is not None
    refusal(tmp_path, "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1))


def test_a_file_above_the_limit_is_not_parsed(tmp_path: Path) -> None:
    assert "at most 65536 are read" in refusal(tmp_path, "a: " + "1" * 65536)


@given(st.text(max_size=40))
def test_random_text_is_read_or_refused_in_one_line(tmp_path_factory: pytest.TempPathFactory, content: str) -> None:
    folder = tmp_path_factory.mktemp("yaml")
    try:
        parse(folder, content)
    except InputError as error:
        assert "\n" not in str(error)
