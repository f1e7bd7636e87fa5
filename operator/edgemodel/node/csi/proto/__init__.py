"""Messages of CSI and of the kubelet's plugin registration, as protoc makes them.

``csi.proto`` and ``pluginregistration.proto`` are the sources; ``hack/generate`` writes ``*_pb2.py`` and ``*_pb2.pyi``
with grpcio-tools (of the ``dev`` extra), offline. Services are plain tables in ``edgemodel.node.csi.calls``.
"""
