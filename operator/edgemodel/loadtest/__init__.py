"""Measures a running Open Inference Protocol server: how many requests it answers, how soon, and what it refuses.

``metadata`` and ``body`` are what the protocol says, ``inputs`` makes tensors, ``by_http`` and ``by_grpc`` requests of them,
``http_connection`` and ``grpc_connection`` send those (each a ``connection``), ``loop`` decides when which is sent,
``histogram`` and ``result`` hold what came of it. The extra ``grpc`` is imported for targets of gRPC only. Knows nothing of
Kubernetes, nor of how its figures are shown.
"""
