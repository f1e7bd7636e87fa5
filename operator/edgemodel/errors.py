"""Every error this package raises on purpose, in one tree; the type decides what happens next.

::

    EdgeModelError
    ├── Refused      judged and found wanting: looked at again at the next poll or when a policy or the spec changes
    ├── Stalled      a person must act: not tried again until something changes
    ├── Waiting      something is on its way: look again ``after`` seconds
    └── Transient    the world failed: back off and try again

``reason`` is one CamelCase word of ``edgemodel.api.conditions`` and goes into a condition;
``message`` is for a person: what was expected, what was found, what to do. Neither ever holds a secret.
"""


class EdgeModelError(Exception):
    """Base of all errors; carries the condition's reason and a message for a person."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message

    def __str__(self) -> str:
        return f"{self.reason}: {self.message}"


class Refused(EdgeModelError):
    """An artifact was judged and does not pass; what serves goes on serving."""


class Stalled(EdgeModelError):
    """Nothing will change until a person acts."""


class Waiting(EdgeModelError):
    """Not wrong, not yet right: look again after ``after`` seconds."""

    def __init__(self, reason: str, message: str, *, after: float) -> None:
        super().__init__(reason, message)
        self.after = after


class Transient(EdgeModelError):
    """Network, registry, disk or API server failed; a later try may succeed.

    ``retry_after`` is the other side's own wish in seconds (HTTP Retry-After), if it gave one.
    """

    def __init__(self, reason: str, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(reason, message)
        self.retry_after = retry_after
