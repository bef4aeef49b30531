"""The shared core and the public face: SDK and command line."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from promptmill.client import Client, Image, Job

__all__ = ["Client", "Image", "Job", "__version__"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """The SDK, imported when it is asked for: a worker needs none of it."""
    if name not in __all__:
        raise AttributeError(f"module 'promptmill' has no attribute {name!r}")
    from promptmill import client

    return getattr(client, name)
