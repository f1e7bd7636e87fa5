"""The project's pages, and the blocks of code in them."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
PAGES = sorted(
    page
    for folder in ("docs", "examples", "charts", "inference_server", "operator")
    for page in (ROOT / folder).rglob("*.md")
) + sorted(ROOT.glob("*.md"))


def title(page: Path) -> str:
    """Return a page's path in the project."""
    return str(page.relative_to(ROOT))


def blocks(page: Path, *languages: str) -> list[str]:
    """Return the fenced blocks of these languages; an empty word is a block that names none."""
    found = re.findall(r"^( *)```(\w*)\n(.*?)^ *```", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return [
        re.sub(f"^{indent}", "", text, flags=re.MULTILINE)
        for indent, name, text in found
        if name in languages
    ]
