"""Runs the command: python -m caprag."""

from caprag.cli import main

if __name__ == "__main__":
    main()
