"""`python -m broker` is `jobnet-broker`."""

from broker.cli import main

main(prog_name="jobnet-broker")
