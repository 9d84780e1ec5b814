"""`python -m pith` is the command `pith`."""

from pith.cli import main

if __name__ == "__main__":
    main()
