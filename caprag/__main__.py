"""Runs the command: python -m caprag."""

from caprag.cli import main

main()
