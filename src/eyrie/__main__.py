"""`python -m eyrie` is `eyrie`."""

from eyrie.cli.main import main

if __name__ == "__main__":
    main()
