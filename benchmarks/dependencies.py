"""Every pinned package with its licence, from the packages' own metadata: ``python -m benchmarks.dependencies``.

Writes docs/dependencies.md; ``--check`` only says (exit 1) whether it is stale or a licence is not known to be fine.
"""

from __future__ import annotations

import re
import sys
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "dependencies.md"
#: Nothing here binds a user of this toolkit beyond naming the authors; MPL-2.0 binds changes of its own files alone.
PERMISSIVE = ("Apache", "MIT", "BSD", "PSF", "Python Software Foundation", "ISC", "MPL", "Mozilla Public", "Unlicense",
              "Zlib", "HPND", "CC0", "0BSD", "Matplotlib", "MIT-CMU")  # fmt: skip
HEAD = """# Dependencies and their licences

Made by `python -m benchmarks.dependencies` from the metadata of the packages that `constraints.txt` pins (CPU build of
`make install`). None is committed here; each is downloaded from its own index.

| package | version | licence |
|---|---|---|
"""


def licence(package: metadata.Distribution) -> str:
    """In the package's own words, its SPDX expression first."""
    about = package.metadata
    classified = [c.split(" :: ")[-1] for c in about.get_all("Classifier") or [] if c.startswith("License :: ")]
    named = [c for c in classified if c != "OSI Approved"]
    said = about.get("License-Expression") or "; ".join(named) or (about.get("License") or "").strip()
    for path in package.files or [] if not said else []:
        if path.name in (about.get_all("License-File") or []):
            said = path.read_text().strip()  # its first line is the licence's name
    return " ".join(said.split("\n")[0].split())[:80] or "not said"


def pinned() -> list[tuple[str, str]]:
    """(name, version) of constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return [(m[1], m[2]) for line in lines if (m := re.match(r"([A-Za-z0-9._-]+)==(\S+)", line))]


def main() -> int:
    """Write or check the page; the exit code."""
    rows, unclear = [], []
    for name, version in pinned():
        try:
            said = licence(metadata.distribution(name))
        except metadata.PackageNotFoundError:
            rows.append(f"| {name} | {version} | not installed on Linux |")
            continue
        rows.append(f"| {name} | {version} | {said} |")
        if not any(word.lower() in said.lower() for word in PERMISSIVE):
            unclear.append(f"{name}: {said}")
    text = HEAD + "\n".join(rows) + "\n"
    for line in unclear:
        sys.stderr.write(f"not known to be permissive: {line}\n")
    if "--check" in sys.argv:
        return int(PAGE.read_text() != text or bool(unclear))
    PAGE.write_text(text)
    return int(bool(unclear))


if __name__ == "__main__":
    raise SystemExit(main())
