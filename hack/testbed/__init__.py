"""A real cluster with the operator installed on it, for the demo, the end-to-end tests and the benchmarks.

Drives the same commands a person would (``helm``, ``kubectl``, ``edgemodel``) and never uses a kube-context that is not ours
unless it was named on the command line.
"""
