"""Messages of the gRPC services that the server speaks, as protoc makes them.

The ``.proto`` files are the sources; ``hack/generate`` writes ``*_pb2.py`` and ``*_pb2.pyi`` with grpcio-tools (of the
``dev`` extra), offline. Each module keeps its messages in a descriptor pool of its own: a program that holds this
server and a client of the same protocol would otherwise be refused by protobuf, which takes a name only once.
"""
