"""How requests reach a model through the gateway, and who may send them: ``spec.traffic`` and ``spec.access``."""

from pydantic import Field

from edgemodel.api.meta import Duration, Resource


class Queue(Resource):
    """Where requests wait that no pod is free for."""

    limit: int = Field(default=128, ge=0, le=100_000)
    """How many may wait; more are answered 503 with Retry-After at once."""
    timeout: Duration = "5s"
    """How long one may wait; then it is answered 503 with Retry-After."""


class Shadow(Resource):
    """Requests that a candidate gets a copy of until it gets all of them; its answers are compared, and thrown away."""

    percent: int = Field(default=0, ge=0, le=100)
    """How many of a hundred inferences over HTTP that the old version answers."""


class Traffic(Resource):
    """How requests are led to pods; it needs the gateway."""

    queue: Queue = Field(default_factory=Queue)
    """Where requests wait that no pod is free for."""
    max_inflight_per_pod: int | None = Field(default=None, ge=1, le=100_000)
    """Requests that one pod gets at the same time; when empty, as many as come."""
    sticky: bool = False
    """Lead requests of one client address to one pod as long as it answers."""
    shadow: Shadow = Field(default_factory=Shadow)
    """Copies of requests for a candidate."""


class AccessSecret(Resource):
    """Names a Secret in the EdgeModel's namespace."""

    secret_name: str = Field(min_length=1, max_length=253)
    """Name of the Secret."""


class Access(Resource):
    """Who may call the model; the gateway sees to it. Where both are named, a caller has to show both."""

    bearer_tokens: AccessSecret | None = None
    """A Secret each of whose values is a token; a caller sends one as Authorization: Bearer."""
    client_certificates: AccessSecret | None = None
    """A Secret whose ca.crt holds the authorities that vouch for callers, who come by the gateway's TLS entry."""
