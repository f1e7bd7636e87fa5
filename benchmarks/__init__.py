"""Where the figures in README come from: each benchmark runs the peer beside ours in one run.

``make bench NAME=pull`` runs one, prints a line per figure and writes ``benchmarks/results/<name>.json``.
"""
