"""The EdgeModel operator: from a signed model in a registry to pods that answer with it.

A tour, low to high; a package imports only what stands above it in this list:

- ``errors``      one exception tree; the type decides whether to stop, wait or try again
- ``api``         the kinds ``EdgeModel`` and ``ModelTrustPolicy``, their conditions, the generated CRDs
- ``artifact``    model artifacts in OCI registries: reference, manifest, signature, trust, store, pull, publish
- ``rollout``     which version serves and which is tried: a pure state machine
- ``reconcile``   what was observed, what follows from it: pure decisions and child objects
- ``cluster``     everything that talks to the Kubernetes API server
- ``node``        what runs beside the model on a node: fetches, verifies again, installs
- ``controller``  the only importer of kopf: watch, queue, worker, metrics
- ``cli``         the ``edgemodel`` command
"""

__version__ = "0.1.0"
