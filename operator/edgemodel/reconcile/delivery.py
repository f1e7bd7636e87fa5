"""What the init container needs to know: today's policies and the registry settings, as a ConfigMap.

It is one for all versions and follows the policies of the moment, not those of the day a version was chosen: a pod that
starts later is judged by today's, and does not start when they refuse its artifact. Its content comes from
``edgemodel.cluster``; no Secret's value is ever in it.
"""

from collections.abc import Mapping

from edgemodel.api.v1alpha1 import EdgeModel
from edgemodel.reconcile.child import Object, delivery_name, metadata
from edgemodel.reconcile.observed import Settings


def delivery_config(model: EdgeModel, settings: Settings, content: Mapping[str, str]) -> Object:
    """Return the ConfigMap ``<model>-delivery``."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(model, settings, delivery_name(model)),
        "data": dict(content),
    }
