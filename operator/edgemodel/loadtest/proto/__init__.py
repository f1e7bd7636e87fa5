"""Messages of the Open Inference Protocol by gRPC.

``hack/generate`` writes them: the same as the inference server's, which this package never imports, from the same source
(``inference_server/proto/inference.proto``).
"""
