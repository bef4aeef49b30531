"""What went wrong with a folder, in one line that names the setting and the remedy."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from promptmill import errors

_REMEDIES = {
    errno.ENOSPC: "the disk is full: free some space",
    errno.EDQUOT: "the disk quota is used up: free some space",
    errno.EACCES: "this user may not write there: change its owner",
    errno.EPERM: "this user may not write or hard-link there: change its owner or file system",
    errno.EROFS: "the file system is read-only: mount it for writing",
    errno.EMFILE: "this process has too many open files: raise ulimit -n",
    errno.ENOTSUP: "this file system has no hard links",
    errno.EMLINK: "this file system has no hard links",
}


@contextlib.contextmanager
def outage(root: Path) -> Iterator[None]:
    """Turns an `OSError` into `errors.StorageDown`. `root`: the store's folder."""
    try:
        yield
    except OSError as error:
        remedy = _REMEDIES.get(error.errno or 0, error.strerror or str(error))
        raise errors.StorageDown(
            f"cannot store objects in {root}: {remedy}; or name another folder"
            " with PROMPTMILL_STORAGE_URL or PROMPTMILL_DATA_DIR"
        ) from error
