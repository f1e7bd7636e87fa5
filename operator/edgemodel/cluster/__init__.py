"""Everything that talks to the Kubernetes API server."""

from edgemodel.cluster.kubernetes_package import load_lazily

load_lazily()
