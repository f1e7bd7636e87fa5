"""The model's one address: a Service that, without a gateway, selects the pods of the version that serves.

Promotion is then this selector's change from one digest to another: every new connection goes to the new version, the old
one finishes what it has. Pods that are not ready receive nothing (``publishNotReadyAddresses`` is false by default). With a
gateway it selects nothing and ``gateway`` says where it leads.
"""

from edgemodel.api.v1alpha1 import EdgeModel, Slot
from edgemodel.reconcile.child import Object, metadata, pod_selector
from edgemodel.reconcile.observed import Settings


def service(model: EdgeModel, settings: Settings, serve: Slot | None) -> Object:
    """Return the Service; ``serve`` is the version it selects, None where it selects none."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(model, settings, model.metadata.name),
        "spec": {
            "type": "ClusterIP",
            # Empty, not left out: what somebody else selects is taken away.
            "selector": {} if serve is None else pod_selector(model, serve),
            "ports": [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}],
        },
    }


def url(model: EdgeModel) -> str:
    """Return where the model answers inside the cluster."""
    return f"http://{model.metadata.name}.{model.metadata.namespace}.svc"
