"""Model artifacts in OCI registries: name, read, sign, trust, store, pull and publish them. Knows nothing of Kubernetes."""
