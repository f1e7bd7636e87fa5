"""How many serving pods a node drain may take at once: one.

One, also where there is only one pod: a budget that forbids it would make the node impossible to drain, and that is worse
on a small cluster than a gap of seconds. Pods of a candidate are not counted, and a pod that does not answer never stands in
the way of a drain.
"""

from edgemodel.api.v1alpha1 import EdgeModel, Slot
from edgemodel.reconcile.child import Object, metadata, pod_selector
from edgemodel.reconcile.observed import Settings


def disruption_budget(model: EdgeModel, settings: Settings, serve: Slot) -> Object:
    """Return the PodDisruptionBudget of the version that serves."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata(model, settings, model.metadata.name),
        "spec": {
            "maxUnavailable": 1,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": pod_selector(model, serve)},
        },
    }
