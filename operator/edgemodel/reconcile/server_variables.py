"""What ``spec.server`` says of how models are computed, as the inference server's environment variables.

The names are the server's contract (``docs/reference/inference-server.md``). What is empty is left to the server, so that
a pod of an EdgeModel without these fields is the same pod as before they existed.
"""

from edgemodel.api.meta import seconds
from edgemodel.api.v1alpha1 import ServerSpec
from edgemodel.reconcile.child import Object


def variables(spec: ServerSpec) -> list[Object]:
    """Return the container's ``env``: ours, then the user's, whose wins where both name one."""
    ours: dict[str, str] = {}
    if spec.processes is not None:
        ours["EDGEMODEL_PROCESSES"] = str(spec.processes or "auto")
    if spec.busy_poll is not None:
        ours["EDGEMODEL_BUSY_POLL"] = _plain(seconds(spec.busy_poll))
    if spec.batching.max_batch_size is not None:
        ours["EDGEMODEL_MAX_BATCH_SIZE"] = str(spec.batching.max_batch_size)
    if spec.batching.max_queue_delay is not None:
        ours["EDGEMODEL_MAX_QUEUE_DELAY"] = _plain(seconds(spec.batching.max_queue_delay))
    if spec.cache is not None:
        ours["EDGEMODEL_CACHE_BYTES"] = str(spec.cache.max_bytes)
        ours["EDGEMODEL_CACHE_TTL"] = _plain(seconds(spec.cache.ttl))
    if spec.memory_mode != "Standard":
        ours["EDGEMODEL_MEMORY_MODE"] = spec.memory_mode
    if spec.providers:
        ours["EDGEMODEL_PROVIDERS"] = ",".join(spec.providers)
    theirs = {variable.get("name") for variable in spec.extra_env}
    return [
        *({"name": name, "value": value} for name, value in ours.items() if name not in theirs),
        *spec.extra_env,
    ]


def _plain(number: float) -> str:
    """Return seconds without an exponent, in microseconds at the finest."""
    return f"{number:.6f}".rstrip("0").rstrip(".")
