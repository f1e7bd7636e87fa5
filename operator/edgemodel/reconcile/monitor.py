"""Tells the Prometheus operator, where it is installed, to scrape the pods behind the model's Service."""

from edgemodel.api.meta import LABEL_MODEL
from edgemodel.api.v1alpha1 import EdgeModel
from edgemodel.reconcile.child import Object, metadata
from edgemodel.reconcile.observed import Settings


def service_monitor(model: EdgeModel, settings: Settings) -> Object:
    """Return the ServiceMonitor (monitoring.coreos.com/v1); the interval is Prometheus's own default."""
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "ServiceMonitor",
        "metadata": metadata(model, settings, model.metadata.name),
        "spec": {
            "selector": {"matchLabels": {LABEL_MODEL: model.metadata.name}},
            "endpoints": [{"port": "http", "path": "/metrics"}],
        },
    }
