"""The entry point of `jobnet-broker` and of `python -m broker`: signals first, then everything else."""

import sys

from broker.signals import take_signals


def main() -> None:
    """Run the command line of this process."""
    take_signals(sys.argv)
    # Imported after the handlers: its imports take longest.
    from broker.cli.main import main as command

    command(prog_name="jobnet-broker")


if __name__ == "__main__":
    main()
