#!/usr/bin/env python3
"""Measures something real on any processor: rounds of a small sum."""

import argparse
import time

parser = argparse.ArgumentParser()
parser.add_argument("--rounds", type=int, default=20_000)
rounds = parser.parse_args().rounds

start = time.perf_counter()
total = 0.0
for number in range(1, rounds + 1):
    total += 1.0 / (number * number)
seconds = max(time.perf_counter() - start, 1e-9)

print(f"sum {total:.6f} after {rounds} rounds")
print(f"performance: {rounds / seconds:.1f} rounds_per_second")
