"""`python -m lmdistill`, and so `accelerate launch -m lmdistill`."""

from lmdistill.cli.main import main

if __name__ == "__main__":
    main()
