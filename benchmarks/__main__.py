"""``python -m benchmarks NAME`` runs ``benchmarks/NAME.py``; without a name it lists them."""

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
    names = sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem not in FRAME)
    parser = argparse.ArgumentParser(prog="make bench NAME=…", description="Run one benchmark.")
    parser.add_argument("name", choices=names, help="which one")
    name = parser.parse_args().name
    module = importlib.import_module(f"benchmarks.{name}")
    return 0 if module.run() else 1


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "hack"))
    raise SystemExit(main())
