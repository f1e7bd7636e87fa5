"""Watch, queue, worker: the thin shell around one pass; the only importer of kopf."""

import edgemodel.cluster  # noqa: F401 - must come before kopf, which would import all of the kubernetes package
