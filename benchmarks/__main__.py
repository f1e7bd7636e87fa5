"""``python -m benchmarks NAME`` runs ``benchmarks/NAME.py``, or the package of that name; without a name it lists them."""

import argparse
import importlib
import sys
from pathlib import Path

FRAME = {
    "__init__",
    "__main__",
    "agents",
    "delta_finetune",
    "delta_models",
    "delta_rivals",
    "figures",
    "finetune",
    "hostile_clients",
    "memory",
    "models",
    "null_server",
    "path_models",
    "table",
}


def main() -> int:
    here = Path(__file__).parent
    found = {path.stem for path in here.glob("*.py")} | {
        path.parent.name for path in here.glob("*/__init__.py")
    }
    names = sorted(found - FRAME)
    parser = argparse.ArgumentParser(prog="make bench NAME=…", description="Run one benchmark.")
    parser.add_argument("name", choices=names, help="which one")
    name = parser.parse_args().name
    module = importlib.import_module(f"benchmarks.{name}")
    return 0 if module.run() else 1


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "hack"))
    raise SystemExit(main())
