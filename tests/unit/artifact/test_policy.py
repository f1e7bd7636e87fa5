"""Policies from resources: what they govern, what makes one invalid, and the way through JSON."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from edgemodel.api.trust_policy import LabelSelector, ModelTrustPolicy
from edgemodel.artifact.policy import Policy, governing, selects
from edgemodel.artifact.reference import Reference
from edgemodel.errors import Stalled
from tests.unit.artifact.signed import key, policy, trusted

PEM = key().public.pem


def resource(authorities=None, **spec) -> ModelTrustPolicy:
    spec.setdefault("match", {"images": ["registry.example.com/**"]})
    authorities = authorities or [{"name": "publisher", "publicKey": PEM}]
    return ModelTrustPolicy.model_validate(
        {"metadata": {"name": "site"}, "spec": {"authorities": authorities, **spec}}
    )


FULL = {
    "match": {
        "images": ["r.io/a/*", "**"],
        "namespaceSelector": {
            "matchLabels": {"site": "7"},
            "matchExpressions": [{"key": "tier", "operator": "In", "values": ["a", "b"]}],
        },
    },
    "mode": "Warn",
    "threshold": 2,
    "formats": ["OpenSSF", "Bundle"],
    "requireSequence": True,
    "allowDowngrade": True,
    "maxAge": "1d12h30m5s250ms",
    "revokedDigests": ["sha256:" + "0" * 64],
}
TWO = [
    {
        "name": "publisher",
        "publicKey": PEM,
        "notBefore": "2026-01-01T00:00:00Z",
        "notAfter": "2027-01-01T00:00:00+01:00",
    },
    {"name": "second", "publicKeySecret": {"namespace": "trust", "name": "keys"}, "revoked": True},
]


def test_everything_is_taken_over():
    made = Policy.from_resource(resource(TWO, **FULL), {"second": key("second").public.pem})
    assert not made.enforce
    assert made.threshold == 2
    assert made.formats == {"Bundle", "OpenSSF"}
    assert made.max_age == timedelta(days=1, hours=12, minutes=30, seconds=5.25)
    assert made.keys[0].not_after == datetime(2026, 12, 31, 23, tzinfo=UTC)
    assert made.keys[1].key == key("second").public
    assert made.keys[1].revoked
    assert made.require_sequence
    assert made.allow_downgrade
    assert made.revoked_digests == {"sha256:" + "0" * 64}


@pytest.mark.parametrize(
    "made",
    [
        policy(),
        policy(trusted(), trusted("second", revoked=True), threshold=2, max_age=timedelta(seconds=0.001)),
        Policy.from_resource(resource(TWO, **FULL), {"second": key("second").public.pem}),
    ],
)
def test_a_round_trip_through_json_changes_nothing(made):
    assert Policy.from_json(made.to_json()) == made
    assert Policy.from_json(made.to_json().encode()) == made


def test_json_is_the_resource_itself_with_its_keys_inline():
    made = Policy.from_resource(resource(TWO, **FULL), {"second": key("second").public.pem})
    document = json.loads(made.to_json())
    assert document["kind"] == "ModelTrustPolicy"
    assert document["metadata"] == {"name": "site"}
    assert "status" not in document
    assert document["spec"]["authorities"][1]["publicKey"] == key("second").public.pem


def test_times_without_an_offset_are_utc():
    naive = [{"name": "publisher", "publicKey": PEM, "notAfter": "2027-01-01T00:00:00"}]
    assert Policy.from_resource(resource(naive)).keys[0].not_after == datetime(2027, 1, 1, tzinfo=UTC)


INVALID = {
    "a Secret that was not found": ({"authorities": TWO}, {}, "authority second: its public key is missing"),
    "a key that cannot be read": (
        {"authorities": TWO},
        {"second": "rubbish"},
        "authority second: public key holds no PEM",
    ),
    "a private key": (
        {"authorities": TWO},
        {"second": key().export_plain().decode()},
        "authority second: public key is a private",
    ),
    "a threshold that cannot be reached": (
        {"threshold": 2},
        {},
        "threshold is 2, but there are only 1 distinct",
    ),
    "a threshold over one key under two names": (
        {"authorities": [{"name": "a", "publicKey": PEM}, {"name": "b", "publicKey": PEM}], "threshold": 2},
        {},
        "threshold is 2, but there are only 1 distinct",
    ),
    "one name twice": (
        {
            "authorities": [
                {"name": "a", "publicKey": PEM},
                {"name": "a", "publicKey": key("second").public.pem},
            ]
        },
        {},
        "two authorities have the same name",
    ),
    "times the wrong way round": (
        {"authorities": [{**TWO[0], "notBefore": "2028-01-01T00:00:00Z"}]},
        {},
        "authority publisher: notBefore must be earlier",
    ),
    "an empty glob": ({"match": {"images": ["a", ""]}}, {}, r"match.images\[1\]"),
    "an age past counting": ({"maxAge": "9" * 30 + "d"}, {}, "maxAge"),
}


@pytest.mark.parametrize(("spec", "keys", "message"), INVALID.values(), ids=INVALID)
def test_invalid_policies_name_the_authority_or_field(spec, keys, message):
    with pytest.raises(Stalled, match=f"trust policy site: {message}") as caught:
        Policy.from_resource(resource(**spec), keys)
    assert caught.value.reason == "InvalidSpec"


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"metadata":{"name":"a"},"spec":{}}'])
def test_json_that_is_no_policy_is_refused(text):
    with pytest.raises(Stalled, match="trust policy: ") as caught:
        Policy.from_json(text)
    assert caught.value.reason == "InvalidSpec"


GLOBS = [
    ("r.io/models/*", "r.io/models/a", True),
    ("r.io/models/*", "r.io/models/a/b", False),
    ("r.io/models/*", "r.io/models", False),
    ("r.io/models/**", "r.io/models/a/b", True),
    ("r.io/models/**", "r.io/modelsx/a", False),
    ("r.io/**/a", "r.io/x/y/a", True),
    ("r.io/*/a", "r.io/x/y/a", False),
    ("**", "any.io:5000/thing", True),
    ("*", "any.io/thing", False),
    ("*.io/a", "r.io/a", True),
    ("*.io/a", "r.io/b/c.io/a", False),
    ("R.io/a", "r.io/a", True),
    ("r.io/a", "r.io:5000/a", False),
    ("a.r.io/x", "axr.io/x", False),
    ("r.io/det?", "r.io/deta", False),
    ("r.io/[a]", "r.io/a", False),
    ("[::1]:5000/*", "[::1]:5000/a", True),
    ("r.io/a-*-b", "r.io/a-x-b", True),
    # Other spellings of the same place.
    ("r.io/a", "r.io:443/a", True),
    ("r.io:443/a", "r.io/a", True),
    ("r.io:443/a", "r.io:5443/a", False),
    ("[::1]/*", "[::1]:443/a", True),
    ("[::1]:443/*", "[::1]/a", True),
    ("docker.io/acme/*", "index.docker.io/acme/a", True),
    ("docker.io/acme/*", "registry-1.docker.io:443/acme/a", True),
    ("index.docker.io/acme/*", "docker.io/acme/a", True),
    ("docker.io/acme/*", "quay.io/acme/a", False),
]


@pytest.mark.parametrize(("glob", "name", "governed"), GLOBS)
def test_globs(glob, name, governed):
    assert policy(images=(glob,)).governs(Reference.parse(f"{name}:1")) is governed


SELECTORS = [
    ({}, {}, True),
    ({"matchLabels": {"a": "1"}}, {"a": "1", "b": "2"}, True),
    ({"matchLabels": {"a": "1"}}, {"a": "2"}, False),
    ({"matchLabels": {"a": "1"}}, {}, False),
    ({"matchExpressions": [{"key": "a", "operator": "In", "values": ["1"]}]}, {"a": "1"}, True),
    ({"matchExpressions": [{"key": "a", "operator": "In", "values": ["1"]}]}, {}, False),
    ({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["1"]}]}, {"a": "1"}, False),
    ({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["1"]}]}, {}, True),
    ({"matchExpressions": [{"key": "a", "operator": "Exists"}]}, {"a": ""}, True),
    ({"matchExpressions": [{"key": "a", "operator": "Exists"}]}, {}, False),
    ({"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}, {}, True),
    ({"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}, {"a": ""}, False),
    (
        {"matchLabels": {"a": "1"}, "matchExpressions": [{"key": "b", "operator": "Exists"}]},
        {"a": "1"},
        False,
    ),
]


@pytest.mark.parametrize(("selector", "labels", "selected"), SELECTORS)
def test_label_selectors(selector, labels, selected):
    assert selects(LabelSelector.model_validate(selector), labels) is selected


def test_a_selector_restricts_namespaces_and_nothing_where_there_are_none():
    only = policy(namespace_selector=LabelSelector(match_labels={"site": "7"}))
    at = Reference.parse("registry.example.com/a:1")
    assert only.governs(at, {"site": "7"})
    assert not only.governs(at, {})
    assert only.governs(at, None)


def test_governing_policies_come_by_name():
    at = Reference.parse("registry.example.com/a:1")
    found = governing([policy(name="b"), policy(name="c", images=("other.io/**",)), policy(name="a")], at)
    assert [each.name for each in found] == ["a", "b"]
