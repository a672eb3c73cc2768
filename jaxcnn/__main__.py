"""`python -m jaxcnn COMMAND ...`: the same as `jaxcnn COMMAND ...`."""

from jaxcnn.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
