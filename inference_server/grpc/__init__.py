"""The Open Inference Protocol by gRPC: methods, statuses and deadlines, health, reflection. Knows HTTP/2 as streams only."""
