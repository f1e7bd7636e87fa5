"""JSON with one meaning and base64 with one spelling."""

import pytest

from edgemodel.artifact import strict_base64, strict_json
from edgemodel.artifact.strict_json import MAX_DEPTH, MAX_MEMBERS, NotStrictJson

BAD = {
    "too long": (b" " * 1001, "is 1001 bytes long"),
    "a key twice": (b'{"a":1,"b":{"c":1,"c":2}}', "has the key 'c' twice"),
    "a key twice by escape": (b'{"a":1,"\\u0061":2}', "has the key 'a' twice"),
    "trailing data": (b"{} {}", "is not JSON at character 3"),
    "a comma too many": (b"[1,]", "is not JSON"),
    "NaN": (b"[NaN]", "holds NaN"),
    "Infinity": (b"[-Infinity]", "holds -Infinity"),
    "not UTF-8": (b'"\xff"', "is not UTF-8 at byte 1"),
    "byte-order mark": (b"\xef\xbb\xbf{}", "is not JSON"),
    "UTF-16": ("{}".encode("utf-16-le"), "is not JSON"),
    "half a surrogate pair": (b'"\\ud800"', "half of a surrogate pair"),
    "half a surrogate pair as key": (b'{"\\udfff":1}', "half of a surrogate pair"),
    "control character": (b'"\x00"', "is not JSON"),
    "empty": (b"", "is not JSON"),
    "deep": (b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), "is nested deeper"),
}


@pytest.mark.parametrize(("data", "message"), BAD.values(), ids=BAD)
def test_refused(data, message):
    with pytest.raises(NotStrictJson, match=message):
        strict_json.parse(data, max_bytes=1000)


@pytest.mark.parametrize("data", [b"[" * 100_000, b'{"a":' * 100_000])
def test_a_hundred_thousand_levels_are_refused_without_a_crash(data):
    with pytest.raises(NotStrictJson, match="deeper"):
        strict_json.parse(data, max_bytes=1 << 20)


def test_a_number_with_too_many_digits_is_refused():
    with pytest.raises(NotStrictJson, match="too many digits"):
        strict_json.parse(b"1" * 10_000, max_bytes=1 << 20)


def test_more_members_than_can_be_meant_are_refused_before_anything_is_built():
    with pytest.raises(NotStrictJson, match="members"):
        strict_json.parse(b"[" + b"{}," * MAX_MEMBERS + b"{}]", max_bytes=4 << 20)


def test_accepted_as_it_stands():
    deepest = b"[" * MAX_DEPTH + b"]" * MAX_DEPTH
    assert strict_json.parse(deepest, max_bytes=1000)
    assert strict_json.parse('{"a":[1,-2.5,true,null,"ü\\ud83d\\ude00"]}'.encode(), max_bytes=1000) == {
        "a": [1, -2.5, True, None, "ü😀"]
    }


@pytest.mark.parametrize("text", ["QQ", "QR==", "QQ=", "QQ===", "Q Q==", "QQ==\n", "-_8=", "", "AAA="])
def test_base64_has_one_spelling(text):
    accepted = {"": b"", "AAA=": b"\0\0"}
    if text in accepted:
        assert strict_base64.decode(text) == accepted[text]
    else:
        with pytest.raises(ValueError, match="is not base64"):
            strict_base64.decode(text)


def test_base64_takes_ascii_only():
    with pytest.raises(ValueError, match="is not base64"):
        strict_base64.decode("QQ=＝")
