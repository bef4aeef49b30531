"""How the commands of training and compression end: what they cannot do is one line on stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable

from promptmill import errors

INTERRUPTED = 130


def run(main: Callable[[], object]) -> None:
    """Runs a command; exits with 1 and says why for `errors.Error` and `OSError`."""
    try:
        main()
    except errors.Error as refused:
        told = str(refused)
    except OSError as problem:
        told = f"{problem.filename}: {problem.strerror}" if problem.filename else str(problem)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    else:
        return
    print(f"promptmill: {' '.join(told.split())}", file=sys.stderr)
    sys.exit(1)
