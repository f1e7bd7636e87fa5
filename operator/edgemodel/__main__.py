"""``python -m edgemodel`` is the ``edgemodel`` command."""

from edgemodel.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
