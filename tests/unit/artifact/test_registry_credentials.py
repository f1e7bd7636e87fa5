import base64
import json

import pytest

from edgemodel.artifact.credentials import Credential, Credentials
from edgemodel.artifact.registry_settings import HostSettings, RegistrySettings
from edgemodel.errors import Stalled


def docker_config(**auths: object) -> str:
    return json.dumps({"auths": auths})


def user(name: str, password: str = "hidden") -> dict[str, str]:
    return {"auth": base64.b64encode(f"{name}:{password}".encode()).decode()}


@pytest.mark.parametrize(
    ("key", "host", "repository", "matches"),
    [
        ("registry.local:5000", "registry.local:5000", "models/a", True),
        ("registry.local:5000", "registry.local", "models/a", False),
        ("registry.local", "registry.local:5000", "models/a", False),
        ("https://registry.local:5000/v2/", "registry.local:5000", "models/a", True),
        ("https://index.docker.io/v1/", "docker.io", "library/a", True),
        ("registry.local/models", "registry.local", "models/a", True),
        ("registry.local/models", "registry.local", "models-of-others/a", False),
        ("registry.local/models/a", "registry.local", "models", False),
        ("*.local", "registry.local", "a", True),
        ("*.local", "evil.registry.local", "a", False),
        ("*.local", "local", "a", False),
        ("registry.local", "registry.local.evil.example", "a", False),
        ("registry.local", "evil-registry.local", "a", False),
    ],
)
def test_a_credential_is_offered_only_to_the_place_it_is_written_under(key, host, repository, matches):
    credentials = Credentials.parse([docker_config(**{key: user("ann")})])
    assert bool(credentials.matching(host, repository)) is matches


def test_several_documents_are_tried_in_their_order_and_longer_paths_first():
    first = docker_config(**{"r.local": user("one"), "r.local/team": user("two")})
    second = docker_config(**{"r.local": user("three")})
    found = Credentials.parse([first, second]).matching("r.local", "team/model")
    assert [credential.username for credential in found] == ["two", "one", "three"]


def test_name_and_password_may_hold_colons_and_letters_of_any_script():
    credentials = Credentials.parse([docker_config(**{"r.local": user("änn", "a:b:c")})])
    (found,) = credentials.matching("r.local", "m")
    assert (found.username, found.password) == ("änn", "a:b:c")
    assert base64.b64decode(found.basic.removeprefix("Basic ")).decode() == "änn:a:b:c"


def test_an_empty_entry_beside_a_credential_helper_is_no_credential():
    config = json.dumps({"auths": {"r.local": {}}, "credsStore": "desktop"})
    assert Credentials.parse([config]).matching("r.local", "m") == ()


@pytest.mark.parametrize(
    "text",
    [
        "not json hidden",
        '["hidden"]',
        '{"auths": "hidden"}',
        '{"auths": {"r.local": "hidden"}}',
        '{"auths": {"r.local": {"auth": "hidden"}}}',
        '{"auths": {"r.local": {"auth": 7}}}',
        '{"auths": {"r.local": {"password": ["hidden"]}}}',
        '{"auths": {"r.local": {"auth": "aGlkZGVu"}}}',
    ],
)
def test_a_malformed_document_is_refused_by_name_and_shows_no_secret(text):
    with pytest.raises(Stalled) as caught:
        Credentials.parse([text], sources=["Secret vision/pull"])
    assert caught.value.reason == "AuthenticationFailed"
    assert "Secret vision/pull" in caught.value.message
    assert "hidden" not in caught.value.message
    assert "aGlkZGVu" not in caught.value.message


def test_no_secret_is_in_a_repr():
    credential = Credential("ann", "hidden", "hidden", "hidden")
    assert "hidden" not in repr(Credentials.parse([docker_config(**{"r.local": user("ann")})]))
    assert "hidden" not in repr(credential)
    assert "ann" not in repr(credential)


PEM = "-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n"


def test_settings_survive_a_round_trip_through_json():
    settings = RegistrySettings(
        {"r.local:5000": HostSettings(plain_http=True), "s.local": HostSettings(ca=PEM)}
    )
    assert RegistrySettings.from_json(settings.to_json()) == settings


def test_plain_http_is_for_named_hosts_only_not_even_for_loopback():
    settings = RegistrySettings({"R.local:5000": HostSettings(plain_http=True)})
    settings = RegistrySettings.from_json(settings.to_json())
    assert settings.for_host("r.local:5000").plain_http
    assert not settings.for_host("127.0.0.1:5000").plain_http
    assert not settings.for_host("localhost").plain_http


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("{", "JSON"),
        ("[]", "object"),
        ('{"r.local": true}', "r.local"),
        ('{"r.local": {"plainHttp": true}}', "plainHttp"),
        ('{"r.local": {"plainHTTP": "yes"}}', "plainHTTP"),
        ('{"r.local": {"ca": "/etc/ca.pem"}}', "ca"),
        ('{"http://r.local": {"plainHTTP": true}}', "http://r.local"),
        (json.dumps({"r.local": {"plainHTTP": True, "ca": PEM}}), "exclude"),
    ],
)
def test_malformed_settings_are_refused_by_the_members_name(text, named):
    with pytest.raises(Stalled) as caught:
        RegistrySettings.from_json(text)
    assert caught.value.reason == "InvalidSpec"
    assert named in caught.value.message
