"""The small cluster with a gateway in it, and with the controllers that write EndpointSlices.

What those do is written down from pkg/controller/{endpointslice,endpointslicemirroring,endpoint} of Kubernetes v1.34: a
Service that loses its selector keeps the slice and the Endpoints that were made for it, and Endpoints of a Service without
selector are mirrored into another slice.
"""

import dataclasses
from typing import Any

from edgemodel.reconcile.decision import Decision
from edgemodel.reconcile.gateway import LABEL_SLICE_MANAGER
from edgemodel.reconcile.observed import GatewayPod, Observed
from tests.unit.reconcile.world import World

Object = dict[str, Any]
PORT = 20123
NAME = "detector"
OF_SELECTOR, MIRRORED = "detector-x7k2p", "detector-m0b9f"
"""Names that the controllers give."""


class GatewayWorld(World):
    """See the module's docstring. ``gateway`` is None where the operator works without one."""

    def __init__(self, *arguments: Any, gateway: bool = True, **spec: Any) -> None:
        super().__init__(*arguments, **spec)
        self.gateway: dict[str, GatewayPod] | None = {} if gateway else None
        self.port: int | None = PORT
        self.closed = ""
        self.gaps: list[str] = []
        """Writes after which nobody answered at the Service though somebody could have."""

    # what people do

    def switch(self, on: bool) -> "GatewayWorld":
        """Start the operator anew with or without a gateway."""
        self.gateway = {} if on else None
        return self

    def add_gateway(self, name: str = "gw-1", address: str = "10.42.0.9", **more: Any) -> "GatewayWorld":
        assert self.gateway is not None
        pod = GatewayPod(name, f"uid-{name}", address, "n1", ready=True)
        self.gateway[name] = dataclasses.replace(pod, **more)
        return self

    def change_gateway(self, name: str = "gw-1", **more: Any) -> "GatewayWorld":
        assert self.gateway is not None
        self.gateway[name] = dataclasses.replace(self.gateway[name], **more)
        return self

    # what the operator does

    def observe(self) -> Observed:
        seen = super().observe()
        on = self.gateway is not None
        foreign = (OF_SELECTOR, MIRRORED)
        return dataclasses.replace(
            seen,
            children=tuple(
                child
                for child in seen.children
                if child["metadata"]["name"] not in foreign and child["kind"] != "Endpoints"
            ),
            foreign_slices=tuple(child for child in seen.children if child["metadata"]["name"] in foreign),
            gateway=tuple(self.gateway.values()) if self.gateway is not None else None,
            gateway_port=self.port if on else None,
            closed=self.closed if on else "",
        )

    def turn(self) -> Decision:
        decision = super().turn()
        self._control_slices()
        self._look("a pass")
        return decision

    def settle(self, most: int = 12) -> "GatewayWorld":
        super().settle(most)
        return self

    def _apply(self, child: Object) -> None:
        super()._apply(child)
        self._look(f"{child['kind']} was applied")

    # what Kubernetes does

    def _control_slices(self) -> None:
        service = self.children.get(("Service", NAME))
        if service is None:
            for key in (("EndpointSlice", OF_SELECTOR), ("EndpointSlice", MIRRORED), ("Endpoints", NAME)):
                self.children.pop(key, None)
            return
        selector = service["spec"].get("selector")
        if selector:
            endpoints = [
                {"addresses": [name], "conditions": {"ready": _ready(pod)}}
                for name, pod in sorted(self.pods.items())
                if selector.items() <= pod["metadata"]["labels"].items()
            ]
            self._slice(OF_SELECTOR, "endpointslice-controller.k8s.io", endpoints)
            self.children["Endpoints", NAME] = _object("Endpoints", NAME, {})
            self.children.pop(("EndpointSlice", MIRRORED), None)
        elif ("Endpoints", NAME) in self.children:
            old = self.children.get(("EndpointSlice", MIRRORED)) or self.children.get(
                ("EndpointSlice", OF_SELECTOR)
            )
            owner = {"kind": "Endpoints", "name": NAME, "uid": f"uid-of-Endpoints-{NAME}"}
            endpoints = old["endpoints"] if old else []
            self._slice(MIRRORED, "endpointslicemirroring-controller.k8s.io", endpoints, owner)
        else:
            self.children.pop(("EndpointSlice", MIRRORED), None)

    def _slice(self, name: str, manager: str, endpoints: list[Object], *owners: Object) -> None:
        found = _object("EndpointSlice", name, {LABEL_SLICE_MANAGER: manager}, *owners)
        self.children["EndpointSlice", name] = {**found, "endpoints": endpoints}

    # what one sees

    def endpoints(self) -> set[str]:
        """Return the addresses that kube-proxy leads the Service's requests to."""
        if ("Service", NAME) not in self.children:
            return set()
        every = [
            one
            for (kind, _), child in self.children.items()
            if kind == "EndpointSlice"
            for one in child.get("endpoints") or ()
        ]
        ready = {one["addresses"][0] for one in every if one["conditions"]["ready"]}
        going = {
            one["addresses"][0]
            for one in every
            if one["conditions"].get("serving") and one["conditions"].get("terminating")
        }
        return ready or going

    def slice_names(self) -> set[str]:
        return {name for kind, name in self.children if kind == "EndpointSlice"}

    def selects(self) -> bool:
        return bool(self.children["Service", NAME]["spec"].get("selector"))

    def _look(self, after: str) -> None:
        led = self.endpoints()
        wrong = [address for address in led if not self._answers(address)]
        if wrong or (not led and any(map(_ready, self.pods.values()))):
            self.gaps.append(f"{after}: {led} of which {wrong} do not answer")

    def _answers(self, address: str) -> bool:
        if address in self.pods:
            return _ready(self.pods[address])
        of_gateway = [pod for pod in (self.gateway or {}).values() if pod.address == address]
        # A gateway that was turned off goes on answering for as long as it drains.
        return self.gateway is None or any(pod.ready and pod.listening for pod in of_gateway)


def _object(kind: str, name: str, labels: Object, *owners: Object) -> Object:
    meta = {"name": name, "uid": f"uid-of-{kind}-{name}", "labels": labels, "ownerReferences": list(owners)}
    return {
        "apiVersion": "v1" if kind == "Endpoints" else "discovery.k8s.io/v1",
        "kind": kind,
        "metadata": meta,
    }


def _ready(pod: Object) -> bool:
    conditions = pod.get("status", {}).get("conditions", ())
    return any(it["type"] == "Ready" and it["status"] == "True" for it in conditions)
