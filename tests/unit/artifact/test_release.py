"""Release facts: what annotations say, and that a bad one is named."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from edgemodel.artifact import media_types
from edgemodel.artifact.manifest import Release, format_time, parse_time, release
from edgemodel.artifact.release import annotations
from edgemodel.errors import Refused
from tests.unit.artifact.signed import artifact

NAMES = {
    "name": media_types.RELEASE_NAME,
    "version": media_types.RELEASE_VERSION,
    "sequence": media_types.RELEASE_SEQUENCE,
    "expires": media_types.RELEASE_EXPIRES,
    "created": media_types.CREATED,
}


def read(**said: str) -> Release:
    return release(artifact(Release(), extra={NAMES[name]: value for name, value in said.items()}))


def test_nothing_said():
    assert read() == Release()


def test_everything_said():
    assert read(
        name="models/detector",
        version="1.4.0",
        sequence="9007199254740991",
        expires="2027-01-31T00:00:00Z",
        created="2026-01-02T03:04:05.678901234+05:30",
    ) == Release(
        "models/detector",
        "1.4.0",
        (1 << 53) - 1,
        datetime(2027, 1, 31, tzinfo=UTC),
        datetime(2026, 1, 1, 21, 34, 5, 678901, UTC),
    )


def test_other_publishers_versions_are_shown():
    assert release(artifact(Release(), extra={media_types.VERSION: "2.0"})).version == "2.0"
    both = {media_types.VERSION: "2.0", media_types.RELEASE_VERSION: "1.0"}
    assert release(artifact(Release(), extra=both)).version == "1.0"


BAD = [
    ("name", ""), ("name", "Models/a"), ("name", "/a"), ("name", "a/"), ("name", "a//b"), ("name", "a" * 256),
    ("name", "../a"), ("name", "a:1"), ("version", ""), ("version", "1\n2"), ("version", "release/1"),
    ("version", "1" * 129),
    ("sequence", ""), ("sequence", "-1"), ("sequence", "+1"), ("sequence", "01"), ("sequence", "1.0"), ("sequence", "1e3"),
    ("sequence", " 1"), ("sequence", "9007199254740992"), ("sequence", "9" * 40), ("sequence", "\u0661"),
    ("expires", ""), ("expires", "2027-01-31"), ("expires", "2027-01-31T00:00:00"), ("expires", "2027-13-01T00:00:00Z"),
    ("expires", "2027-02-29T00:00:00Z"), ("expires", "0000-01-01T00:00:00Z"), ("expires", "0001-01-01T00:00:00+01:00"),
    ("expires", "2027-01-01T00:00:00+24:00"), ("expires", "2027-01-01 00:00:00Z"), ("expires", "1893456000"),
    ("created", "yesterday"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), BAD, ids=[f"{name} {value[:20]!a}" for name, value in BAD])
def test_a_bad_value_is_refused_by_its_annotation(name, value):
    with pytest.raises(Refused, match=f"annotation {NAMES[name]}") as caught:
        read(**{name: value})
    assert caught.value.reason == "MalformedArtifact"


def test_what_is_written_is_read_back():
    facts = Release(
        "a/b",
        "1",
        0,
        datetime(2027, 1, 1, tzinfo=timezone(timedelta(hours=2))),
        datetime(2026, 1, 1, tzinfo=UTC),
    )
    assert release(artifact(facts)) == facts


@pytest.mark.parametrize(
    "facts",
    [
        Release(name="A"),
        Release(version=""),
        Release(version="release/1"),
        Release(sequence=-1),
        Release(sequence=1 << 53),
    ],
)
def test_what_could_not_be_read_back_is_not_written(facts):
    with pytest.raises(Refused):
        annotations(facts)


def test_times():
    moment = datetime(2026, 11, 24, 12, tzinfo=timezone(timedelta(hours=-3)))
    assert format_time(moment) == "2026-11-24T15:00:00Z"
    assert parse_time("2026-11-24t12:00:00-03:00") == moment
