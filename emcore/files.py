"""Writing files so that nothing is ever half written. A leaf: imports nothing of ours."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["check_writable", "replacing"]


def check_writable(path: str | os.PathLike[str], name: str = "path") -> Path:
    """Return the file that a path stands for, symbolic links followed.

    Raises
    ------
    ValueError
        When it is there and no regular file, or its directory is missing or cannot be written to; `name` says which
        argument it was.
    """
    target = Path(path).resolve()
    if not target.parent.is_dir():
        raise ValueError(f"{name}: the directory {str(Path(path).parent)!r} does not exist")
    if target.is_dir():
        raise ValueError(f"{name}: {str(path)!r} is a directory")
    if target.exists() and not target.is_file():
        raise ValueError(f"{name}: {str(path)!r} is not a regular file")
    if not os.access(target.parent, os.W_OK):
        raise ValueError(f"{name}: the directory {str(Path(path).parent)!r} is not writable")
    return target


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Hand out a temporary path beside the target, and move it over the target when the block ends well.

    Raises
    ------
    ValueError
        As `check_writable`.
    OSError
        When it cannot be written.
    """
    target = check_writable(path)
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp's files are for their owner alone
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
