"""Server reflection (grpc.reflection.v1 and v1alpha): what grpcurl and its like ask before they can call.

Pure. Promises an answer to every question: the services, and the file descriptor that holds a name. The two versions
have the same messages on the wire, so one answers for both.
"""

from google.protobuf.descriptor import FileDescriptor

from inference_server.grpc.messages import Code
from inference_server.proto import health_pb2, inference_pb2, reflection_pb2, reflection_v1alpha_pb2

_FILES: tuple[FileDescriptor, ...] = (
    inference_pb2.DESCRIPTOR,
    health_pb2.DESCRIPTOR,
    reflection_pb2.DESCRIPTOR,
    reflection_v1alpha_pb2.DESCRIPTOR,
)


def _symbols(file: FileDescriptor) -> list[str]:
    """Return every name that a file defines, in full."""
    services = list(file.services_by_name.values())
    names = [service.full_name for service in services]
    names += [method.full_name for service in services for method in service.methods]
    names += [enum.full_name for enum in file.enum_types_by_name.values()]
    messages = list(file.message_types_by_name.values())
    for message in messages:
        names.append(message.full_name)
        names += [enum.full_name for enum in message.enum_types]
        messages += message.nested_types
    return names


_BY_NAME = {file.name: file for file in _FILES}
_BY_SYMBOL = {symbol: file for file in _FILES for symbol in _symbols(file)}
_SERVICES = tuple(sorted(service.full_name for file in _FILES for service in file.services_by_name.values()))


def answer(message: bytes) -> bytes:
    """Return the answer to one question of `ServerReflectionInfo`.

    Raises:
        google.protobuf.message.DecodeError: `message` is no question.
    """
    question = reflection_pb2.ServerReflectionRequest.FromString(message)
    reply = reflection_pb2.ServerReflectionResponse(valid_host=question.host, original_request=question)
    match question.WhichOneof("message_request"):
        case "list_services":
            for name in _SERVICES:
                reply.list_services_response.service.add(name=name)
        case "file_by_filename":
            _describe(reply, _BY_NAME.get(question.file_by_filename))
        case "file_containing_symbol":
            _describe(reply, _BY_SYMBOL.get(question.file_containing_symbol))
        case "all_extension_numbers_of_type" if question.all_extension_numbers_of_type in _BY_SYMBOL:
            reply.all_extension_numbers_response.base_type_name = question.all_extension_numbers_of_type
        case _:  # extensions, of which these messages have none
            _describe(reply, None)
    return reply.SerializeToString()


def _describe(reply: reflection_pb2.ServerReflectionResponse, file: FileDescriptor | None) -> None:
    if file is None:
        reply.error_response.error_code = Code.NOT_FOUND
        reply.error_response.error_message = "not one of this server's files, messages and services"
    else:
        reply.file_descriptor_response.file_descriptor_proto.append(file.serialized_pb)
