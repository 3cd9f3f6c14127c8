"""JSON exactly as RFC 8259 has it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow_server.strict_json import parse

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**15), 10**15)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
            inner,
            max_size=3,
        )
    ),
    max_leaves=10,
)


@given(VALUES)
def test_whatever_json_says_is_read_as_the_standard_library_reads_it(value):
    assert parse(json.dumps(value).encode(), max_depth=64) == value
    assert parse(json.dumps(value, ensure_ascii=False).encode(), max_depth=64) == value


@given(st.binary(max_size=60))
def test_arbitrary_bytes_raise_nothing_but_value_error(data):
    try:
        refusal = ""
        parse(data, max_depth=4)
    except ValueError as error:
        refusal = str(error)
    assert len(refusal) < 60, "the text is a constant, not the input"


@pytest.mark.parametrize(
    "data",
    [b"", b" ", b"{", b"[1,]", b"{'a':1}", b"NaN", b"[Infinity]", b"-Infinity", b"1e999", b"[-1e999]",
     b'{"a":1,"a":1}', b'[{"a":{"b":1,"b":2}}]', b'{"a":1,"\\u0061":2}', b'"\\ud800"', b'"\\udc00x"',
     b'"\\u0000"', b'{"\\u0000":1}', b'["a\\u0000b"]', b"\xef\xbb\xbf1", b"\xff", b'"\xed\xa0\x80"',
     b"123456789012345678901", b"-123456789012345678901", b"01", b"1.", b".5", b"0x1", b"1 2", b'"\n"',
     '{"a": 1}'.encode("utf-16"), '"a"'.encode("utf-32"), b"[" * 1000],
)  # fmt: skip
def test_what_is_not_agreed_is_refused(data):
    with pytest.raises(ValueError, match=r"JSON|NUL|twice|digits|large"):
        parse(data, max_depth=8)


@pytest.mark.parametrize(
    ("data", "depth"),
    [(b"1", 0), (b"[]", 1), (b"[[]]", 2), (b'{"a":[{}]}', 3), (b"[1,[2],3]", 2), (b'"[[[["', 0)],
)
def test_nesting_is_counted_exactly(data, depth):
    parse(data, max_depth=depth)
    if depth:
        with pytest.raises(ValueError, match="nested"):
            parse(data, max_depth=depth - 1)


def test_an_escaped_backslash_before_u0000_is_no_nul():
    assert parse(b'"\\\\u0000"', max_depth=1) == "\\u0000"


def test_integers_have_a_limit_of_digits():
    assert parse(b"-12345678901234567890", max_depth=1) == -12345678901234567890
    with pytest.raises(ValueError, match="digits"):
        parse(b"123", max_depth=1, max_digits=2)
