"""Request targets: which operation on which model a path of the protocol addresses.

Pure. Paths are those of the Open Inference Protocol's REST specification and of Triton's extensions for statistics and
model configuration, and `/v2/models/…/golden`, `/openapi.json` and `/metrics`, which are this server's own.
"""

from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from inference_server.errors import InvalidRequest, NotFound


@dataclass(frozen=True, slots=True)
class Target:
    """A request target taken apart.

    Attributes:
        operation: What is asked for; "model-infer" for inference.
        model: The model's name, "" where none is addressed.
        version: Its version, None where none is named.
    """

    operation: str
    model: str = ""
    version: str | None = None


def parse_target(target: bytes) -> Target:
    """Return what a request target addresses.

    Args:
        target: The target as it came in the request line; the query is ignored.

    Raises:
        NotFound: No path of the protocol.
        InvalidRequest: The path is not UTF-8.
    """
    path = target.partition(b"?")[0]
    if not path.startswith(b"/") and b"://" in path:  # absolute form, as proxies send it
        path = b"/" + path.partition(b"://")[2].partition(b"/")[2]
    try:
        # Split first: an escaped slash belongs to a name.
        parts = [unquote_to_bytes(part).decode("utf-8") for part in path.split(b"/")]
    except UnicodeDecodeError:
        raise InvalidRequest("path: expected UTF-8") from None
    match parts:
        case ["", "v2"]:
            return Target("server")
        case ["", "v2", "health", ("live" | "ready") as state]:
            return Target(state)
        case ["", "v2", "repository", "index"]:
            return Target("repository-index")
        case ["", "v2", "repository", "models", model, ("load" | "unload") as operation]:
            return Target(f"repository-{operation}", model)
        case ["", ("metrics" | "openapi.json") as document]:
            return Target(document)
        case ["", "v2", "models", "stats"]:
            return Target("stats")
        case ["", "v2", "models", model]:
            return Target("model", model)
        case ["", "v2", "models", model, ("ready" | "infer" | "golden" | "stats" | "config") as operation]:
            return Target(f"model-{operation}", model)
        case ["", "v2", "models", model, "versions", version]:
            return Target("model", model, version)
        case [
            "", "v2", "models", model, "versions", version,
            ("ready" | "infer" | "golden" | "stats" | "config") as operation,
        ]:  # fmt: skip
            return Target(f"model-{operation}", model, version)
    shown = path[:100].decode("ascii", "replace")
    raise NotFound(f"path {shown!r}: expected one of the Open Inference Protocol v2 (/v2/…) or /metrics")
