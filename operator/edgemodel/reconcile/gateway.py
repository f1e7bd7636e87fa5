"""Where the model's one address leads: to pods, to the gateway, or to nobody; and how it is turned from one to the other.

With a gateway the Service has no selector. EndpointSlices of ours name the gateway's pods instead, at the port that is this
model's alone; which version answers there the gateway takes from the EdgeModel's status.

Turning a live Service must not lose a request, whichever way it goes. Both kinds of endpoint answer while it is under way,
and each step is taken only once the one before was seen:

* to the gateway: a gateway pod was seen to answer at this model's port → our slice → the Service without selector → the
  slices that Kubernetes made for the selector go. (Its controller leaves them behind, and mirrors the old Endpoints object
  into a new slice; that goes by the object it was made from.)
* to pods: the Service with selector → Kubernetes' slice names a pod that answers → our slice goes. (The port stays in
  status: without it a gateway that drains would answer no more.)

Where ``spec.access`` says who may call, no step leads to pods: without a gateway the Service leads to nobody, because a pod
asks nobody who he is.
"""

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any

from edgemodel.api.conditions import Reason
from edgemodel.api.meta import CHILD_MANAGER
from edgemodel.api.v1alpha1 import EdgeModel
from edgemodel.reconcile.child import Object, metadata, sealed
from edgemodel.reconcile.decision import ObjectRef
from edgemodel.reconcile.observed import GatewayPod, LiveObject, Observed, Settings

SLICE_API = "discovery.k8s.io/v1"
LABEL_SERVICE = "kubernetes.io/service-name"
"""On an EndpointSlice: the Service whose requests it takes."""
LABEL_SLICE_MANAGER = "endpointslice.kubernetes.io/managed-by"
"""On an EndpointSlice: who writes it; controllers leave each other's alone."""
_OF_SELECTOR, _OF_MIRROR = "endpointslice-controller.k8s.io", "endpointslicemirroring-controller.k8s.io"


class Way(Enum):
    """Where the Service leads."""

    PODS = "pods"
    GATEWAY = "gateway"
    NOBODY = "nobody"


def way(observed: Observed) -> Way:
    """Decide where the model's Service is to lead after this pass."""
    if observed.gateway is None or observed.gateway_port is None:
        return Way.NOBODY if guarded(observed.model) else Way.PODS
    if guarded(observed.model) or not _selects(observed):
        return Way.GATEWAY
    return Way.GATEWAY if any(pod.listening for pod in takers(observed)) else Way.PODS


def guarded(model: EdgeModel) -> bool:
    """Tell whether only some may call the model."""
    access = model.spec.access
    return access is not None and bool(access.bearer_tokens or access.client_certificates)


def takers(observed: Observed) -> tuple[GatewayPod, ...]:
    """Return the gateway pods that take requests."""
    return tuple(pod for pod in observed.gateway or () if pod.ready and not pod.going)


def trouble(observed: Observed) -> tuple[Reason, str] | None:
    """Say why nobody reaches the model, however well its pods do; None when that is not so."""
    leads = way(observed)
    if leads is Way.NOBODY and observed.gateway is None:
        return Reason.GATEWAY_MISSING, (
            "spec.access says who may call, which only the gateway can see to, and the operator works without one: nobody "
            "is let in. Turn it on (gateway.enabled in the chart), or take spec.access away."
        )
    if leads is Way.NOBODY:
        return Reason.GATEWAY_MISSING, "spec.access needs the gateway, and all of its ports are taken."
    if leads is Way.GATEWAY and not takers(observed):
        return Reason.GATEWAY_MISSING, (
            "No pod of the gateway takes requests, through which all of them go. Look at its Deployment in the operator's "
            "namespace."
        )
    if observed.closed:
        return Reason.ACCESS_CLOSED, f"Nobody is let in: {observed.closed}"
    return None


def waiting(observed: Observed) -> str:
    """Say what keeps the Service at pods though there is to be a gateway before them; empty when nothing does."""
    if observed.gateway is None or way(observed) is not Way.PODS:
        return ""
    if observed.gateway_port is None:
        return "All ports of the gateway are taken: its requests go to its pods past the gateway."
    return "Requests go to its pods past the gateway, without weights and queue, until it answers for this model."


def slices(observed: Observed) -> tuple[Object, ...]:
    """Return the EndpointSlices that lead to the gateway, one for each family of addresses; none if it leads elsewhere."""
    port = observed.gateway_port
    if way(observed) is not Way.GATEWAY or port is None or _of_another(observed):
        return ()
    pods = observed.gateway or ()
    families = {"IPv6": [pod for pod in pods if ":" in pod.address]}
    families["IPv4"] = [pod for pod in pods if ":" not in pod.address]
    # One is always there: a Service whose slices are all gone for a moment would refuse connections.
    return tuple(
        endpoint_slice(observed.model, observed.settings, family, found, port)
        for family, found in sorted(families.items())
        if found or (family == "IPv4" and not pods)
    )


def kept_slices(observed: Observed) -> tuple[Object, ...]:
    """Return those of our slices that are there already, as they should be: what a suspended model is still given."""
    live = {child["metadata"]["name"] for child in observed.children if child.get("kind") == "EndpointSlice"}
    return tuple(sealed(one) for one in slices(observed) if one["metadata"]["name"] in live)


def endpoint_slice(
    model: EdgeModel, settings: Settings, family: str, pods: Iterable[GatewayPod], port: int
) -> Object:
    """Return one EndpointSlice (discovery.k8s.io/v1); ``family``, IPv4 or IPv6, can't be changed in a live one."""
    name = f"{model.metadata.name}-gateway{'-v6' if family == 'IPv6' else ''}"
    labels = {LABEL_SERVICE: model.metadata.name, LABEL_SLICE_MANAGER: CHILD_MANAGER}
    return {
        "apiVersion": SLICE_API,
        "kind": "EndpointSlice",
        "metadata": metadata(model, settings, name, labels=labels),
        "addressType": family,
        "ports": [{"name": "http", "port": port, "protocol": "TCP"}],
        "endpoints": [_endpoint(pod) for pod in pods],
    }


def _endpoint(pod: GatewayPod) -> Object:
    return {
        "addresses": [pod.address],
        # A pod that is going goes on answering for a while; kube-proxy uses it if there is no other.
        "conditions": {"ready": pod.ready and not pod.going, "serving": pod.ready, "terminating": pod.going},
        **({"nodeName": pod.node} if pod.node else {}),
    }


def leftover_slices(observed: Observed) -> tuple[ObjectRef, ...]:
    """Return what Kubernetes made for the selector that the live Service has no more, and would leave behind."""
    service = _service(observed.children)
    if way(observed) is Way.PODS or service is None or _selects(observed):
        return ()
    found: dict[tuple[str, str], ObjectRef] = {}
    for one in observed.foreign_slices:
        meta = one["metadata"]
        maker = (meta.get("labels") or {}).get(LABEL_SLICE_MANAGER)
        if maker == _OF_SELECTOR and not meta.get("deletionTimestamp"):
            found["EndpointSlice", meta["name"]] = ObjectRef(
                SLICE_API, "EndpointSlice", meta["name"], str(meta.get("uid", ""))
            )
        elif maker == _OF_MIRROR:
            for owner in meta.get("ownerReferences") or ():
                if owner.get("kind") == "Endpoints":
                    name = str(owner.get("name"))
                    found["Endpoints", name] = ObjectRef("v1", "Endpoints", name, str(owner.get("uid", "")))
    return tuple(found.values())


def held_slices(observed: Observed, *, answering: bool) -> frozenset[str]:
    """Return the names of our slices that stay for now, though the Service leads to pods again.

    ``answering`` tells whether any pod is ready that the Service selects: if none is, waiting would mend nothing.
    """
    if way(observed) is not Way.PODS or not answering or any(map(_answers, observed.foreign_slices)):
        return frozenset()
    return frozenset(
        child["metadata"]["name"] for child in observed.children if child.get("kind") == "EndpointSlice"
    )


def turning(observed: Observed, *, answering: bool) -> bool:
    """Tell whether a turn is under way, so that another pass must look before long."""
    if held_slices(observed, answering=answering) or leftover_slices(observed):
        return True
    if way(observed) is Way.GATEWAY:
        return _selects(observed)  # its slices are to go once the Service is seen without
    # A pod of the gateway is up and does not answer for this model yet: it has to hear of its port first.
    return observed.gateway_port is not None and bool(takers(observed))


def _of_another(observed: Observed) -> bool:
    """Tell whether the Service is somebody else's: a slice would lead its callers to us."""
    return f"Service/{observed.model.metadata.name}" in observed.conflicts


def _answers(found: LiveObject) -> bool:
    of_selector = (found["metadata"].get("labels") or {}).get(LABEL_SLICE_MANAGER) == _OF_SELECTOR
    return of_selector and any(
        (one.get("conditions") or {}).get("ready") for one in found.get("endpoints") or ()
    )


def _service(children: Iterable[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    return next((child for child in children if child.get("kind") == "Service"), None)


def _selects(observed: Observed) -> bool:
    service = _service(observed.children)
    return service is not None and bool((service.get("spec") or {}).get("selector"))
