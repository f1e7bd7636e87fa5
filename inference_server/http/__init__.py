"""HTTP/1.1 and what is asked by it: bytes ↔ requests, their paths, bodies and status codes."""
