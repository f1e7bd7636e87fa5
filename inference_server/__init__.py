"""A small inference server for ONNX models that speaks the Open Inference Protocol v2.

It loads one model from a directory (`docs/reference/model-directory.md`), answers on HTTP, exposes
Prometheus metrics and drains on SIGTERM. It knows nothing of Kubernetes nor of the `edgemodel` package:
what it shares with them are that directory, the protocol and the metric names
(`docs/reference/metrics.md`).
"""
