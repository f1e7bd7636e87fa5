"""HTTP/2 for gRPC, as RFC 9113 has it: bytes ↔ streams. Knows no path and no message."""
