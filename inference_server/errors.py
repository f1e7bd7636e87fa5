"""Every error this server raises on purpose, in one tree.

::

    ServerError
    ├── RequestError              a client gets `status` and {"error": message}
    │   ├── InvalidRequest        400  malformed body, shape, datatype, count, name
    │   ├── NotFound              404  no such model, version or path
    │   ├── MethodNotAllowed      405
    │   ├── BodyTooLarge          413
    │   ├── UnsupportedEncoding   415
    │   ├── HeaderTooLarge        431
    │   ├── ExecutionFailed       500  the model itself failed on a well-formed input
    │   ├── NotReady              503  loading, or out of memory for this request
    │   │   └── Overloaded        503  more is waiting than can be answered in time
    │   └── DeadlineExceeded      504  the client's own deadline passed before there was an answer
    ├── SamplesUnreadable         the golden samples cannot be read; the model is served all the same
    └── FatalError                the process ends with `exit_code`; `reason` goes to the termination log
        ├── InvalidSettings       2    a flag or an environment variable
        ├── ListenFailed          3    the address is taken or not ours
        └── LoadError             the model cannot be served (docs/reference/model-directory.md)
            ├── ModelLoadFailed      10      ├── AmbiguousModelFile   13
            ├── UnsupportedOpset     11      ├── ModelFileNotFound    14
            └── MissingExternalData  12      └── OutOfMemory          15

Messages are for a person: what was expected, what was found, where, what to do.
"""


class ServerError(Exception):
    """Root of the tree; never raised itself."""


class RequestError(ServerError):
    """A request that is answered with `status` and the message."""

    status = 500


class InvalidRequest(RequestError):
    """The request is not what the protocol or the model expects."""

    status = 400


class NotFound(RequestError):
    """No such path, model or version."""

    status = 404


class MethodNotAllowed(RequestError):
    """The path exists, but not for this method; `allow` names the methods it has."""

    status = 405

    def __init__(self, message: str, allow: str) -> None:
        super().__init__(message)
        self.allow = allow


class BodyTooLarge(RequestError):
    """The body is, or says it is, larger than the server accepts."""

    status = 413


class UnsupportedEncoding(RequestError):
    """The body is encoded in a way this server does not read."""

    status = 415


class HeaderTooLarge(RequestError):
    """The request line and headers together pass their cap."""

    status = 431


class ExecutionFailed(RequestError):
    """The model failed although the input had the right names, shapes and types."""

    status = 500


class NotReady(RequestError):
    """The server cannot answer now; the same request may succeed later or elsewhere."""

    status = 503


class Overloaded(NotReady):
    """More requests wait than can be answered in time; refused before anything was computed."""


class DeadlineExceeded(RequestError):
    """The moment by which the client wanted the answer has passed."""

    status = 504


class SamplesUnreadable(ServerError):
    """The golden samples beside the model are damaged, too large, or no samples."""


class FatalError(ServerError):
    """The process cannot go on: it ends with `exit_code` and leaves `reason` in the termination log."""

    reason = "ServerFailed"
    exit_code = 1


class InvalidSettings(FatalError):
    """A flag or an environment variable has a value that makes no sense."""

    reason = "InvalidSettings"
    exit_code = 2


class ListenFailed(FatalError):
    """The address could not be bound."""

    reason = "ListenFailed"
    exit_code = 3


class LoadError(FatalError):
    """The model cannot be served; root of the six reasons of the model directory contract."""


class ModelLoadFailed(LoadError):
    """The file is damaged, or ONNX Runtime refuses the graph."""

    reason = "ModelLoadFailed"
    exit_code = 10


class UnsupportedOpset(LoadError):
    """The model needs a newer operator set, IR version or operator than this ONNX Runtime knows."""

    reason = "UnsupportedOpset"
    exit_code = 11


class MissingExternalData(LoadError):
    """A weights file that the model names is absent, too short, or outside the model directory."""

    reason = "MissingExternalData"
    exit_code = 12


class AmbiguousModelFile(LoadError):
    """Several `*.onnx` files and nothing that says which one is the entry."""

    reason = "AmbiguousModelFile"
    exit_code = 13


class ModelFileNotFound(LoadError):
    """The path, the entry file or `model.json` is not there or not usable."""

    reason = "ModelFileNotFound"
    exit_code = 14


class OutOfMemory(LoadError):
    """The model does not fit in the memory this process may use."""

    reason = "OutOfMemory"
    exit_code = 15
