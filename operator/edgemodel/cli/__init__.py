"""The ``edgemodel`` command: argument parsing and printing only."""
