"""`python -m promptmill`."""

from promptmill.cli import main

main()
