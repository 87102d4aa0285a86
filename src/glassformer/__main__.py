"""`python -m glassformer` is the command line; `torchrun -m glassformer` too."""

from glassformer.cli import main

if __name__ == "__main__":
    main()
