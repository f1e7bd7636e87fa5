"""Reads the trust policies and the keys they name, as they are now.

A policy that cannot be used (a key is missing or is no key) still governs what it matches, and nothing it
governs passes: forgetting it would let artifacts in that it was made to keep out.
"""

import asyncio
import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import ValidationError

from edgemodel.api.trust_policy import Authority, ModelTrustPolicy, SecretKeyRef
from edgemodel.artifact.policy import Policy
from edgemodel.artifact.reference import Reference
from edgemodel.cluster.client import ApiServer, Forbidden, Object
from edgemodel.cluster.kinds import MODEL_TRUST_POLICY, SECRET
from edgemodel.errors import Stalled


@dataclass(frozen=True, slots=True)
class ReadPolicy:
    """One ModelTrustPolicy and what could be made of it."""

    resource: ModelTrustPolicy
    policy: Policy | None
    """None when it cannot be used."""
    problem: str = ""
    """Why it cannot be used, for a person."""

    @property
    def name(self) -> str:
        """The policy's name."""
        return self.resource.metadata.name

    def governs(self, reference: Reference, namespace_labels: Mapping[str, str]) -> bool:
        """Tell whether it speaks of artifacts at ``reference`` in a namespace with these labels."""
        match = self.resource.spec.match
        policy = self.policy or Policy(
            self.name, tuple(match.images), (), namespace_selector=match.namespace_selector
        )
        return policy.governs(reference, namespace_labels)

    def to_json(self) -> str:
        """Write it for the init container; one that cannot be used comes out such that nobody can use it."""
        if self.policy is not None:
            return self.policy.to_json()
        return self.resource.model_dump_json(
            by_alias=True,
            exclude_none=True,
            include={"api_version": True, "kind": True, "metadata": {"name"}, "spec": True},
        )


async def read_policies(api: ApiServer) -> tuple[ReadPolicy, ...]:
    """Return every ModelTrustPolicy of the cluster, by name.

    Raises:
        Transient: the API server failed; what is not known must not be taken for absent.
    """
    listed = await api.list(MODEL_TRUST_POLICY)
    return tuple(await asyncio.gather(*(read_policy(api, manifest) for manifest in listed)))


async def read_policy(api: ApiServer, manifest: Object) -> ReadPolicy:
    """Make a policy of one live ModelTrustPolicy and the Secrets it names.

    Raises:
        Stalled: ``InvalidSpec``; it is not one this version can read.
        Transient: the API server failed.
    """
    try:
        resource = ModelTrustPolicy.model_validate(manifest)
    except ValidationError as error:
        # The CRD refuses such objects, so this one is older, or newer: what it asks for is unknown, so nothing is judged.
        first = error.errors(include_url=False, include_input=False)[0]
        where = f"{manifest['metadata']['name']} field {'.'.join(str(part) for part in first['loc'])}"
        raise Stalled("InvalidSpec", f"ModelTrustPolicy {where}: {first['msg']}") from error
    keys = {}
    for authority in resource.spec.authorities:
        if authority.public_key_secret is not None:
            ref = authority.public_key_secret
            try:
                pem = await _key(api, authority, ref)
            except Forbidden:
                # Only what this policy governs must wait for the permission, not every model of the cluster.
                problem = (
                    f"trust policy {resource.metadata.name}: authority {authority.name}: the operator may not read Secret "
                    f"{ref.name} in namespace {ref.namespace}; name that namespace in the chart's policySecretNamespaces"
                )
                return ReadPolicy(resource, None, problem)
            if pem is not None:
                keys[authority.name] = pem
    try:
        return ReadPolicy(resource, Policy.from_resource(resource, keys))
    except Stalled as error:
        return ReadPolicy(resource, None, error.message)
    except (ValidationError, ValueError) as error:
        return ReadPolicy(resource, None, f"trust policy {resource.metadata.name}: {error}")


def delivered(policies: tuple[ReadPolicy, ...]) -> str:
    """Return the JSON list that the init container judges by."""
    documents = [json.loads(policy.to_json()) for policy in policies]
    return json.dumps(documents, sort_keys=True, separators=(",", ":"))


async def _key(api: ApiServer, authority: Authority, ref: SecretKeyRef) -> str | None:
    secret = await api.get(SECRET, ref.namespace, ref.name)
    value = ((secret or {}).get("data") or {}).get(ref.key)
    if value is None:
        return None
    try:
        return base64.b64decode(value, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        # Not a PEM; from_pem says so without quoting it.
        return f"authority {authority.name}"
