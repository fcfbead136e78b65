"""`python -m warren`: the command line."""

from warren.cli import main

if __name__ == "__main__":
    main()
