"""Triton's model repository extension over gRPC: what `http.repository` is over HTTP.

Source: Triton Inference Server, grpc_service.proto (RepositoryIndex, RepositoryModelLoad, RepositoryModelUnload).
"""

from collections.abc import Awaitable, Callable
from dataclasses import asdict

from inference_server.errors import InvalidRequest
from inference_server.http.repository import Repository
from inference_server.proto import inference_pb2 as pb

Answer = Callable[[bytes], Awaitable[bytes]]


class GrpcRepository:
    """Answers the three methods.

    Args:
        repository: The models.

    Attributes:
        methods: What answers, by the method's name.
    """

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self.methods: dict[str, Answer] = {
            "RepositoryIndex": self._index,
            "RepositoryModelLoad": self._load,
            "RepositoryModelUnload": self._unload,
        }

    async def _index(self, message: bytes) -> bytes:
        request = pb.RepositoryIndexRequest.FromString(message)
        entries = await self._repository.index(only_ready=request.ready)
        models = [pb.RepositoryIndexResponse.ModelIndex(**asdict(entry)) for entry in entries]
        return pb.RepositoryIndexResponse(models=models).SerializeToString()

    async def _load(self, message: bytes) -> bytes:
        request = pb.RepositoryModelLoadRequest.FromString(message)
        for name in request.parameters:
            raise InvalidRequest(f"parameters.{name[:60]}: expected none; a model is what its folder holds")
        await self._repository.load(request.model_name)
        return pb.RepositoryModelLoadResponse().SerializeToString()

    async def _unload(self, message: bytes) -> bytes:
        request = pb.RepositoryModelUnloadRequest.FromString(message)
        await self._repository.unload(request.model_name)
        return pb.RepositoryModelUnloadResponse().SerializeToString()
