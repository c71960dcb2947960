"""`python -m bench throughput` …: the commands behind `make bench`."""

from __future__ import annotations

import sys

from bench.lab import lab
from bench.rounds import full_and_half
from bench.teams import TEAMS, Setting

if __name__ == "__main__":
    names = sys.argv[1].split(",")
    rounds = int(sys.argv[2])
    with lab() as here:
        for _ in range(rounds):
            for name in names:
                full = full_and_half(here, TEAMS[name], Setting(), float(sys.argv[3]), 500)
                print(name, full)
