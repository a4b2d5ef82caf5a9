"""Writing a file so that nothing saved is ever lost or half-written."""

import os
import uuid
from pathlib import Path


def write_atomic(path: Path, content: bytes) -> None:
    """Write beside ``path`` first and then replace it: ``path`` holds the old content or the new, whole.

    Args:
        path: where to write; its folder exists.
        content: the whole file.

    Raises:
        OSError: the file cannot be written; what was there is untouched, and nothing else is left behind.
    """
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        with open(part, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
