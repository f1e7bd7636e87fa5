"""Trust policies as values: which artifacts a policy governs, which keys count, how many, and with what limits.

Promises: a ``Policy`` that exists is whole (every key could be read, the threshold can be reached), so that judging
cannot fail for the policy's own fault; a round trip through JSON changes nothing. Leaves to others: reading Secrets,
and judging (``trust``).
"""

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Self

from pydantic import ValidationError

from edgemodel.api.meta import OwnerMetadata, seconds
from edgemodel.api.trust_policy import (
    Authority,
    LabelSelector,
    ModelTrustPolicy,
    ModelTrustPolicySpec,
    PolicyMatch,
)
from edgemodel.artifact.digest import Digest
from edgemodel.artifact.keys import PublicKey
from edgemodel.artifact.reference import DOCKER_HUB, Reference
from edgemodel.artifact.signature import Format
from edgemodel.errors import Stalled


@dataclass(frozen=True, slots=True)
class TrustedKey:
    """One authority of a policy."""

    name: str
    key: PublicKey
    not_before: datetime | None = None
    not_after: datetime | None = None
    revoked: bool = False


@dataclass(frozen=True, slots=True)
class Policy:
    """One ModelTrustPolicy with its keys at hand."""

    name: str
    images: tuple[str, ...]
    """Globs over ``registry/repository``: ``*`` stays within one path component, ``**`` crosses them."""
    keys: tuple[TrustedKey, ...]
    namespace_selector: LabelSelector = field(default_factory=LabelSelector, hash=False)
    enforce: bool = True
    """False: what the policy holds against an artifact is a warning."""
    threshold: int = 1
    """How many distinct keys must have signed."""
    formats: frozenset[Format] = frozenset({"Bundle", "Legacy"})
    require_sequence: bool = False
    allow_downgrade: bool = False
    max_age: timedelta | None = None
    revoked_digests: frozenset[Digest] = frozenset()

    @classmethod
    def from_resource(cls, resource: ModelTrustPolicy, keys: Mapping[str, str] | None = None) -> Self:
        """Make a policy of the resource.

        Args:
            resource: as the API server holds it.
            keys: PEM by authority name, for authorities that name a Secret.

        Raises:
            Stalled: ``InvalidSpec``; the message names the policy and the authority or field.
        """
        name, spec = resource.metadata.name, resource.spec
        for number, glob in enumerate(spec.match.images):
            if not glob or any(letter.isspace() for letter in glob):
                raise _invalid(name, f"match.images[{number}] is empty or holds white space")
        trusted = tuple(_trusted(name, authority, keys or {}) for authority in spec.authorities)
        if len({key.name for key in trusted}) != len(trusted):
            raise _invalid(name, "two authorities have the same name")
        distinct = len({key.key.key_id for key in trusted})
        if spec.threshold > distinct:
            raise _invalid(
                name, f"threshold is {spec.threshold}, but there are only {distinct} distinct keys"
            )
        return cls(
            name=name,
            images=tuple(spec.match.images),
            keys=trusted,
            namespace_selector=spec.match.namespace_selector,
            enforce=spec.mode == "Enforce",
            threshold=spec.threshold,
            formats=frozenset(spec.formats),
            require_sequence=spec.require_sequence,
            allow_downgrade=spec.allow_downgrade,
            max_age=_age(name, spec.max_age),
            revoked_digests=frozenset(Digest(digest) for digest in spec.revoked_digests),
        )

    def governs(self, reference: Reference, namespace_labels: Mapping[str, str] | None = None) -> bool:
        """Tell whether the policy speaks of artifacts at ``reference`` in a namespace with these labels.

        ``namespace_labels`` None means that there is no namespace (the command line): only the globs are looked at.
        """
        if namespace_labels is not None and not selects(self.namespace_selector, namespace_labels):
            return False
        return any(_glob(image).fullmatch(name) for image in self.images for name in _names(reference))

    def to_json(self) -> str:
        """Write the policy as a ModelTrustPolicy with its keys inline; ``from_json`` reads it back."""
        spec = ModelTrustPolicySpec(
            match=PolicyMatch(images=list(self.images), namespace_selector=self.namespace_selector),
            mode="Enforce" if self.enforce else "Warn",
            authorities=[
                Authority(
                    name=key.name,
                    public_key=key.key.pem,
                    not_before=key.not_before,
                    not_after=key.not_after,
                    revoked=key.revoked,
                )
                for key in self.keys
            ],
            threshold=self.threshold,
            formats=sorted(self.formats),
            require_sequence=self.require_sequence,
            allow_downgrade=self.allow_downgrade,
            max_age=f"{self.max_age // timedelta(milliseconds=1)}ms" if self.max_age is not None else None,
            revoked_digests=sorted(self.revoked_digests),
        )
        resource = ModelTrustPolicy(metadata=OwnerMetadata(name=self.name), spec=spec)
        return resource.model_dump_json(
            by_alias=True,
            exclude_none=True,
            include={"api_version": True, "kind": True, "metadata": {"name"}, "spec": True},
        )

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read what ``to_json`` writes, or any ModelTrustPolicy in JSON whose keys are inline.

        Raises:
            Stalled: ``InvalidSpec``.
        """
        try:
            resource = ModelTrustPolicy.model_validate_json(text)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise Stalled("InvalidSpec", f"trust policy: {where or 'document'}: {first['msg']}") from None
        return cls.from_resource(resource)


def governing(
    policies: Sequence[Policy], reference: Reference, namespace_labels: Mapping[str, str] | None = None
) -> tuple[Policy, ...]:
    """Return the policies that govern ``reference``, by name."""
    found = (policy for policy in policies if policy.governs(reference, namespace_labels))
    return tuple(sorted(found, key=lambda policy: policy.name))


def selects(selector: LabelSelector, labels: Mapping[str, str]) -> bool:
    """Tell whether a label selector selects ``labels``, as Kubernetes defines it; an empty one selects everything."""
    if any(labels.get(key) != value for key, value in selector.match_labels.items()):
        return False
    for requirement in selector.match_expressions:
        present = requirement.key in labels
        among = present and labels[requirement.key] in requirement.values
        holds = {
            "In": among,
            "NotIn": not among,
            "Exists": present,
            "DoesNotExist": not present,
        }[requirement.operator]
        if not holds:
            return False
    return True


def _names(reference: Reference) -> tuple[str, ...]:
    """Return a reference's name in every spelling that leads to the same place: none of them evades a policy."""
    host = reference.registry.removesuffix(":443")
    if ":" in host.rpartition("]")[2]:
        return (reference.name,)
    same = DOCKER_HUB if host in DOCKER_HUB else {host}
    hosts = sorted(same | {f"{each}:443" for each in same})
    return tuple(f"{each}/{reference.repository}" for each in hosts)


@functools.lru_cache(maxsize=1024)
def _glob(pattern: str) -> re.Pattern[str]:
    # References have host names in lower case and repositories know no other.
    pieces = re.split(r"(\*+)", pattern.lower())
    return re.compile(
        "".join(
            "[^/]*" if piece == "*" else ".*" if piece.startswith("*") else re.escape(piece)
            for piece in pieces
        )
    )


def _trusted(policy: str, authority: Authority, keys: Mapping[str, str]) -> TrustedKey:
    pem = keys.get(authority.name) or authority.public_key
    if pem is None:
        raise _invalid(
            policy,
            f"authority {authority.name}: its public key is missing; the Secret it names was not found",
        )
    try:
        key = PublicKey.from_pem(pem)
    except Stalled as error:
        raise _invalid(policy, f"authority {authority.name}: {error.message}") from None
    not_before, not_after = _aware(authority.not_before), _aware(authority.not_after)
    if not_before is not None and not_after is not None and not_before >= not_after:
        raise _invalid(policy, f"authority {authority.name}: notBefore must be earlier than notAfter")
    return TrustedKey(authority.name, key, not_before, not_after, authority.revoked)


def _age(policy: str, duration: str | None) -> timedelta | None:
    if duration is None:
        return None
    try:
        return timedelta(seconds=seconds(duration))
    except (OverflowError, ValueError):
        raise _invalid(policy, f"maxAge {duration[:40]} is longer than can be counted") from None


def _aware(moment: datetime | None) -> datetime | None:
    """Return the time in UTC; one without an offset is UTC, as the API server writes all of them."""
    if moment is None:
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _invalid(policy: str, what: str) -> Stalled:
    return Stalled("InvalidSpec", f"trust policy {policy}: {what}")
