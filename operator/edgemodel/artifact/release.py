"""What a publisher says about a release, as annotations of its manifest: name, version, sequence, expiry.

Promises: a ``Release`` holds well-formed values; a bad one is refused by the annotation's name, never
skipped. Annotations are part of the manifest and so covered by every signature over its digest. Leaves to
others: whether such a signature exists (``trust`` hands out a ``Release`` only then).
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone

from edgemodel.artifact import media_types
from edgemodel.artifact.oci_manifest import Manifest, malformed

MAX_SEQUENCE = 1 << 53
"""Sequences stay below this: what every JSON parser holds exactly."""
MAX_VERSION = 128
"""Longest version in characters."""

_NAME = re.compile(
    r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*", re.ASCII
)
_NUMBER = re.compile(r"0|[1-9][0-9]{0,15}", re.ASCII)
_TIME = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?(?:[Zz]|([+-])(\d\d):(\d\d))", re.ASCII
)


@dataclass(frozen=True, slots=True)
class Release:
    """One release of a model; None stands for what its publisher did not say."""

    name: str | None = None
    """Which model it is: one or more trailing components of the repository it belongs into."""
    version: str | None = None
    """For people; nothing is ever decided by it."""
    sequence: int | None = None
    """Grows with every release, 0 ≤ n < 2^53; what protects against going back to an old one."""
    expires: datetime | None = None
    """From when on the release must not be taken into use; aware, UTC."""
    created: datetime | None = None
    """When it was made; aware, UTC."""


def release(manifest: Manifest) -> Release:
    """Read the release facts of a manifest.

    Raises:
        Refused: ``MalformedArtifact``; the message names the annotation.
    """
    found = manifest.annotations
    version_from = (
        media_types.RELEASE_VERSION if media_types.RELEASE_VERSION in found else media_types.VERSION
    )
    return Release(
        name=_name(found.get(media_types.RELEASE_NAME)),
        version=_version(found.get(version_from), version_from),
        sequence=_sequence(found.get(media_types.RELEASE_SEQUENCE)),
        expires=_time(found.get(media_types.RELEASE_EXPIRES), media_types.RELEASE_EXPIRES),
        created=_time(found.get(media_types.CREATED), media_types.CREATED),
    )


def annotations(facts: Release) -> dict[str, str]:
    """Return the annotations that say ``facts``; ``release`` reads them back.

    Raises:
        Refused: ``MalformedArtifact``; a value could not be read back.
    """
    said: dict[str, str] = {}
    if facts.name is not None:
        said[media_types.RELEASE_NAME] = facts.name
    if facts.version is not None:
        said[media_types.RELEASE_VERSION] = said[media_types.VERSION] = facts.version
    if facts.sequence is not None:
        said[media_types.RELEASE_SEQUENCE] = str(facts.sequence)
    if facts.expires is not None:
        said[media_types.RELEASE_EXPIRES] = format_time(facts.expires)
    if facts.created is not None:
        said[media_types.CREATED] = format_time(facts.created)
    _name(said.get(media_types.RELEASE_NAME))
    _version(said.get(media_types.RELEASE_VERSION), media_types.RELEASE_VERSION)
    _sequence(said.get(media_types.RELEASE_SEQUENCE))
    return said


def format_time(moment: datetime) -> str:
    """Write an aware time as RFC 3339 in UTC, to the second."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_time(text: str) -> datetime:
    """Read RFC 3339 as an aware time in UTC; digits beyond microseconds are dropped.

    Raises:
        ValueError: it is not such a time.
    """
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError(f"expected an RFC 3339 time such as 2027-01-31T00:00:00Z, found {text[:80]!r}")
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    offset = timedelta(hours=int(match[9] or 0), minutes=int(match[10] or 0)) * (-1 if match[8] == "-" else 1)
    try:
        moment = datetime(
            year, month, day, hour, minute, second, int((match[7] or "0")[:6].ljust(6, "0")), timezone(offset)
        )
        return moment.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{text[:80]!r} is not a time: {error}") from None


def _name(text: str | None) -> str | None:
    if text is not None and (len(text) > 255 or not _NAME.fullmatch(text)):
        raise malformed(
            f"annotation {media_types.RELEASE_NAME}: expected the end of a repository path such as models/detector, "
            f"found {text[:80]!r}"
        )
    return text


def _version(text: str | None, annotation: str) -> str | None:
    if text is not None and (not 0 < len(text) <= MAX_VERSION or not text.isprintable() or "/" in text):
        # The version is a segment of the inference server's URLs; it refuses what is refused here.
        raise malformed(
            f"annotation {annotation}: expected 1 to {MAX_VERSION} printable characters without '/', "
            f"found {text[:80]!r}"
        )
    return text


def _sequence(text: str | None) -> int | None:
    if text is None:
        return None
    if not _NUMBER.fullmatch(text) or int(text) >= MAX_SEQUENCE:
        raise malformed(
            f"annotation {media_types.RELEASE_SEQUENCE}: expected a whole number from 0 to 2^53-1 in decimal digits, "
            f"found {text[:80]!r}"
        )
    return int(text)


def _time(text: str | None, annotation: str) -> datetime | None:
    if text is None:
        return None
    try:
        return parse_time(text)
    except ValueError as error:
        raise malformed(f"annotation {annotation}: {error}") from None
