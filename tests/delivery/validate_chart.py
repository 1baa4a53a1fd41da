"""Run by the delivery environment's Python: are these objects what Kubernetes takes? `VERSIONS KINDS FILE…`, each list with commas.

Kinds are those of other projects, of which Kubernetes has no schema. Prints a line for each fault.
"""

from __future__ import annotations

import sys
from pathlib import Path

import kubernetes_validate
import yaml


def main() -> None:
    """Print them."""
    versions, foreign, files = sys.argv[1].split(","), sys.argv[2].split(","), sys.argv[3:]
    seen = set()
    for file in files:
        for text in Path(file).read_text(encoding="utf-8").split("\n---\n"):
            # Most of what differently rendered charts have is the same.
            if text in seen:
                continue
            seen.add(text)
            document = yaml.load(text, yaml.CSafeLoader)
            if not document or document["kind"] in foreign:
                continue
            for version in versions:
                try:
                    kubernetes_validate.validate(document, version, strict=True)
                except kubernetes_validate.ValidationError as error:
                    where = ".".join(map(str, error.path))
                    name = f"{document['kind']} {document['metadata']['name']}"
                    print(f"{Path(file).name}: {version}: {name}: {where}: {error.message}")


if __name__ == "__main__":
    main()
