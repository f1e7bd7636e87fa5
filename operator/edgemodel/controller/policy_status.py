"""A pass for one ModelTrustPolicy: is it usable, and how many EdgeModels does it govern?

Changes no EdgeModel: those are judged in their own passes, by the same reading of the policy.
"""

from datetime import datetime

from edgemodel.api.conditions import Reason, Statement, merge
from edgemodel.api.trust_policy import ModelTrustPolicyStatus
from edgemodel.artifact.reference import Reference
from edgemodel.cluster.apply import apply_policy_status
from edgemodel.cluster.client import ApiServer
from edgemodel.cluster.kinds import EDGE_MODEL, MODEL_TRUST_POLICY, NAMESPACE
from edgemodel.cluster.policies import ReadPolicy, read_policy
from edgemodel.errors import Stalled


class PolicyStatus:
    """Writes the status of ModelTrustPolicies."""

    def __init__(self, api: ApiServer, *, namespaces: tuple[str, ...]) -> None:
        self._api = api
        self._namespaces = namespaces

    async def update(self, name: str, now: datetime) -> bool:
        """Bring one policy's status up to date; True when something was written."""
        manifest = await self._api.get(MODEL_TRUST_POLICY, None, name)
        if manifest is None or manifest["metadata"].get("deletionTimestamp"):
            return False
        read = await read_policy(self._api, manifest)
        status = policy_status(read, await self._governed(read), now)
        if status == read.resource.status:
            return False
        await apply_policy_status(self._api, read.resource.metadata, status)
        return True

    async def _governed(self, read: ReadPolicy) -> int:
        labels = {
            namespace["metadata"]["name"]: namespace["metadata"].get("labels") or {}
            for namespace in await self._api.list(NAMESPACE)
        }
        count = 0
        for namespace in self._namespaces or (None,):
            for model in await self._api.list(EDGE_MODEL, namespace):
                try:
                    reference = Reference.parse(model["spec"]["image"])
                except Stalled:
                    continue
                count += read.governs(reference, labels.get(model["metadata"]["namespace"], {}))
        return count


def policy_status(read: ReadPolicy, models: int, now: datetime) -> ModelTrustPolicyStatus:
    """Return the status that a policy should have."""
    usable = read.policy is not None
    keys = len(read.resource.spec.authorities)
    message = (
        f"All {keys} keys can be read."
        if usable
        else f"{read.problem}. Nothing it governs is let in until then."
    )
    generation = read.resource.metadata.generation
    valid: Statement = (
        ("Valid", "True", Reason.VERIFIED, message)
        if usable
        else ("Valid", "False", Reason.INVALID_SPEC, message)
    )
    conditions = merge(read.resource.status.conditions, [valid], generation=generation, now=now)
    return ModelTrustPolicyStatus(observed_generation=generation, models=models, conditions=list(conditions))
