"""One test's corner of the cluster: a namespace, a registry, a key, policies, and words to talk about them."""

import base64
import json
from typing import Any

from edgemodel.api.meta import API_VERSION, LABEL_MODEL
from edgemodel.artifact.signature import PrivateKey
from edgemodel.cluster.client import ApiServer
from edgemodel.cluster.kinds import (
    CHILDREN,
    DEPLOYMENT,
    EDGE_MODEL,
    EVENT,
    MODEL_TRUST_POLICY,
    NAMESPACE,
    SECRET,
    SERVICE,
    SERVICE_MONITOR,
    Kind,
)
from tests.control_plane.waiting import until
from tests.simulators.publisher import Publisher
from tests.simulators.registry import RegistrySimulator

Object = dict[str, Any]


class Site:
    """See the module's docstring."""

    def __init__(self, api: ApiServer, registry: RegistrySimulator, namespace: str) -> None:
        self.api = api
        self.registry = registry
        self.publisher = Publisher(registry)
        self.namespace = namespace
        self.key = PrivateKey.generate()
        self.policies: list[str] = []

    async def open(self) -> None:
        manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace}}
        await self.api.apply(NAMESPACE, manifest, manager="tests")

    async def close(self) -> None:
        for name in self.policies:
            await self._delete(MODEL_TRUST_POLICY, None, name)
        for model in await self.api.list(EDGE_MODEL, self.namespace):
            await self._delete(EDGE_MODEL, self.namespace, model["metadata"]["name"])
        await self._delete(NAMESPACE, None, self.namespace)

    async def _delete(self, kind: Kind, namespace: str | None, name: str) -> None:
        live = await self.api.get(kind, namespace, name)
        if live is not None:
            await self.api.delete(kind, namespace, name, uid=live["metadata"]["uid"])

    # -- what a person does -----------------------------------------------------------------------------------------

    def image(self, repository: str = "detector", tag: str = "stable") -> str:
        return f"{self.registry.host}/{self.namespace}/{repository}:{tag}"

    def publish(self, version: str, *, signed: bool = True, repository: str = "detector", **more: Any) -> str:
        keys = more.pop("keys", (self.key,) if signed else ())
        return self.publisher.publish(
            f"{self.namespace}/{repository}",
            more.pop("tag", "stable"),
            version=version,
            keys=keys,
            content=version.encode(),
            **more,
        )

    async def policy(self, name: str = "site", *, key: PrivateKey | None = None, **spec: Any) -> str:
        full = f"{self.namespace}-{name}"
        authority: Object = {"name": "site", "publicKey": (key or self.key).public.pem}
        manifest = {
            "apiVersion": API_VERSION,
            "kind": "ModelTrustPolicy",
            "metadata": {"name": full},
            "spec": {
                "match": {"images": [f"{self.registry.host}/{self.namespace}/**"]},
                "authorities": [authority],
                **spec,
            },
        }
        await self.api.apply(MODEL_TRUST_POLICY, manifest, manager="tests")
        if full not in self.policies:
            self.policies.append(full)
        return full

    async def remove_policy(self, name: str = "site") -> None:
        await self._delete(MODEL_TRUST_POLICY, None, f"{self.namespace}-{name}")

    async def apply(
        self, name: str = "detector", *, annotations: Object | None = None, **spec: Any
    ) -> Object:
        spec.setdefault("image", self.image())
        spec.setdefault("pollInterval", "1s")
        # Pods here answer nobody: a version takes over as soon as the fake kubelet calls its pods ready.
        spec["rollout"] = {"gate": {"window": "0s", "goldenSamples": "Ignore"}, **spec.get("rollout", {})}
        manifest = {
            "apiVersion": API_VERSION,
            "kind": "EdgeModel",
            "metadata": {"name": name, "namespace": self.namespace, "annotations": annotations or {}},
            "spec": spec,
        }
        return await self.api.apply(EDGE_MODEL, manifest, manager="tests")

    async def delete(self, name: str = "detector") -> None:
        await self._delete(EDGE_MODEL, self.namespace, name)

    async def secret(self, name: str, kind: str, key: str, value: str) -> None:
        manifest = {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": kind,
            "metadata": {"name": name, "namespace": self.namespace},
            "data": {key: base64.b64encode(value.encode()).decode()},
        }
        await self.api.apply(SECRET, manifest, manager="tests")

    async def pull_secret(self, name: str, username: str, password: str) -> None:
        config = {"auths": {self.registry.host: {"username": username, "password": password}}}
        await self.secret(name, "kubernetes.io/dockerconfigjson", ".dockerconfigjson", json.dumps(config))

    # -- what a person sees -----------------------------------------------------------------------------------------

    async def model(self, name: str = "detector") -> Object:
        live = await self.api.get(EDGE_MODEL, self.namespace, name)
        assert live is not None, f"EdgeModel {name} is gone"
        return live

    async def status(self, name: str = "detector") -> Object:
        return dict((await self.model(name)).get("status") or {})

    async def condition(self, kind: str, name: str = "detector") -> tuple[str, str, str]:
        for condition in (await self.status(name)).get("conditions", ()):
            if condition["type"] == kind:
                return condition["status"], condition["reason"], condition["message"]
        return "", "", ""

    async def becomes(
        self, kind: str, status: str, reason: str | None = None, name: str = "detector", seconds: float = 60
    ) -> str:
        """Wait for a condition; return its message."""
        seen: tuple[str, str, str] = ("", "", "")

        async def look() -> bool:
            nonlocal seen
            seen = await self.condition(kind, name)
            return seen[0] == status and reason in (None, seen[1])

        try:
            await until(look, f"{kind} becomes {status}/{reason}", seconds=seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}; {kind} is {seen}; status: {await self.status(name)}") from None
        return seen[2]

    async def serve(self, version: str = "1.0.0", **spec: Any) -> str:
        """Publish, allow and apply a version and wait until it serves; return its digest."""
        digest = self.publish(version)
        await self.policy()
        await self.apply(**spec)
        await self.serves(digest)
        return digest

    async def serves(self, digest: str, name: str = "detector", seconds: float = 60) -> None:
        """Wait until a version is the active one, ready, and the only one."""

        async def look() -> bool:
            status = await self.status(name)
            active = status.get("slots", {}).get("active") or {}
            return active.get("digest") == digest and not status["slots"].get("candidate")

        try:
            await until(look, f"{digest} is active", seconds=seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}; status: {await self.status(name)}") from None
        await self.becomes("Ready", "True", "Serving", name, seconds)

    async def children(self, kind: Kind, name: str = "detector") -> tuple[Object, ...]:
        return await self.api.list(kind, self.namespace, labels={LABEL_MODEL: name})

    async def deployments(self, name: str = "detector") -> tuple[Object, ...]:
        return await self.children(DEPLOYMENT, name)

    async def service(self, name: str = "detector") -> Object | None:
        return await self.api.get(SERVICE, self.namespace, name)

    async def events(self, reason: str) -> list[Object]:
        return [event for event in await self.api.list(EVENT, self.namespace) if event["reason"] == reason]

    async def versions(self, name: str = "detector") -> dict[str, str]:
        """Return the resourceVersion of the model and everything of it that the operator writes."""
        objects = [await self.model(name)]
        for kind in CHILDREN:
            if kind is not SERVICE_MONITOR:
                objects += await self.children(kind, name)
        return {f"{it['kind']}/{it['metadata']['name']}": it["metadata"]["resourceVersion"] for it in objects}
