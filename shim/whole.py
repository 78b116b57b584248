"""Files of a shim's directory that others read meanwhile: there whole, or not at all."""

import json
import os
from pathlib import Path


def write(path: Path, document: object, *, indent: int | None = None) -> None:
    """Leave a JSON document there, for root to read: written beside it, then renamed (rename(2)). Raises OSError."""
    draft = path.with_suffix(".new")
    with open(draft, "w", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(json.dumps(document, indent=indent) + "\n")
    draft.rename(path)
