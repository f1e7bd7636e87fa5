"""The Open Inference Protocol: bodies, messages and documents ↔ tensors and plain values. Pure."""
