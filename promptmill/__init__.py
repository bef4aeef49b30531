"""The shared core and the public face: SDK and command line."""

__version__ = "0.1.0"
