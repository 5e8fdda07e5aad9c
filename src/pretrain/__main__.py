"""`python -m pretrain`."""

from pretrain.cli.main import entry

if __name__ == "__main__":
    entry()
