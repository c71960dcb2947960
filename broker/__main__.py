"""`python -m broker` is `jobnet-broker`."""

from broker.cli.main import main

main(prog_name="jobnet-broker")
