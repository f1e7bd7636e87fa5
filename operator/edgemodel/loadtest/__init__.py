"""Measures a running Open Inference Protocol server: how many requests it answers, how soon, and what it refuses.

``metadata`` and ``body`` are what the protocol says, ``inputs`` makes tensors, ``connection`` speaks HTTP, ``loop`` decides
when which request is sent, ``histogram`` and ``result`` hold what came of it. Knows nothing of Kubernetes, nor of how its
figures are shown.
"""
