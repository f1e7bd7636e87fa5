"""A URL is taken apart once, and what is no such URL is refused."""

import pytest

from edgemodel.errors import Stalled
from edgemodel.loadtest.target import Target, model_path
from tests.simulators.certificates import loopback_tls


@pytest.mark.parametrize(
    ("url", "host", "port", "path"),
    [
        ("grpc://localhost:8080", "localhost", 8080, ""),
        ("grpc://localhost/", "localhost", 80, ""),
        ("http://localhost", "localhost", 80, ""),
        ("http://localhost:8080/", "localhost", 8080, ""),
        ("http://[::1]:8080", "::1", 8080, ""),
        ("http://site/vision/detector/", "site", 80, "/vision/detector"),
    ],
)
def test_a_url_is_taken_apart(url, host, port, path):
    target = Target.parse(url)
    assert (target.host, target.port, target.path, target.tls) == (host, port, path, None)
    assert target.grpc == url.startswith("grpc")


@pytest.mark.parametrize(
    "url",
    [
        "localhost:8080",
        "ftp://a",
        "grpc://a/vision/detector",
        "http://",
        "http://a:99999",
        "http://a:b",
        "http://a?x=1",
        "http://user@a",
        "http://a\r\nX: y",
        "http://\u00e9",
        "http://[::1",
    ],
)
def test_another_is_refused(url):
    with pytest.raises(Stalled):
        Target.parse(url)


@pytest.mark.parametrize("token", ["a b", "a\r\nX: y", "\u00e9"])
def test_a_token_is_one_word(token):
    with pytest.raises(Stalled, match="the token"):
        Target.parse("http://a", token=token)


@pytest.mark.parametrize("authority", ["", "a b", "a\r\nX: y", "\u00e9"])
def test_an_authority_is_one_word(authority):
    assert Target.parse("grpc://a:1", authority="m.vision").authority == "m.vision"
    with pytest.raises(Stalled, match="--authority"):
        Target.parse("grpc://a", authority=authority)


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_tls_trusts_the_authorities_of_a_file(tmp_path, scheme):
    authority = tmp_path / "ca.pem"
    authority.write_text(loopback_tls(tmp_path)[1])
    target = Target.parse(f"{scheme}s://a", ca_file=authority)
    assert (target.port, target.tls is not None) == (443, True)
    with pytest.raises(Stalled, match="--ca-file is for https and grpcs"):
        Target.parse(f"{scheme}://a", ca_file=authority)
    (tmp_path / "none.pem").write_text("none")
    with pytest.raises(Stalled, match=r"none\.pem: expected certificates in PEM"):
        Target.parse("https://a", ca_file=tmp_path / "none.pem")


def test_a_request_is_whole_and_shows_the_token():
    target = Target.parse("http://a:1/p", token="secret")
    assert target.request("POST", "/v2", b"xy", [("A", "b")]) == (
        b"POST /p/v2 HTTP/1.1\r\nHost: a:1\r\nAccept: */*\r\nAuthorization: Bearer secret\r\nA: b\r\n"
        b"Content-Length: 2\r\n\r\nxy"
    )
    assert "secret" not in repr(target)


def test_names_are_escaped_in_paths():
    assert model_path("a/b c") == "/v2/models/a%2Fb%20c"
    assert model_path("a", "1") == "/v2/models/a/versions/1"
