#!/usr/bin/env python3
"""Counts the instructions of the benchmarks beside this file and compares them with baseline.json:

    benches/instructions/check.py [--renew]

A count that is more than 5 % above its baseline fails. One that is more than 5 % below asks for a renewal, which
`--renew` is: it writes what was counted. Counts of another compiler, processor architecture or C library (malloc and
memcpy are counted too) are shown and fail nothing. Needs valgrind, and gungraun-runner on the PATH in the version that
Cargo.lock has of gungraun. Ends with one line: `instructions: N passed, N failed`."""

import argparse
import json
import os
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
BASELINE = HERE / "baseline.json"
TOLERANCE = 5  # per cent


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--renew", action="store_true", help="write what was counted as the baseline")
    renew = arguments.parse_args().renew
    made_with, counts = toolchain(), counted()
    if renew:
        BASELINE.write_text(json.dumps({"made_with": made_with, "instructions": counts}, indent=2) + "\n")
        print(f"{len(counts)} counts written")
        return
    baseline = json.loads(BASELINE.read_text())
    holds = baseline["made_with"] == made_with
    if not holds:
        print(f"the baseline was made with {told(baseline['made_with'])}")
        print(f"this is                    {told(made_with)}: differences fail nothing, --renew makes a new baseline")
    failed = compare(baseline["instructions"], counts) if holds else report(baseline["instructions"], counts)
    print(f"instructions: {len(counts.keys() | baseline['instructions'].keys()) - failed} passed, {failed} failed")
    sys.exit(failed > 0)


def compare(before, now):
    """Tells of every benchmark how it stands; returns how many don't hold."""
    failed, renewal = 0, False
    for name in sorted(before.keys() | now.keys()):
        if name not in now or name not in before:
            failed += 1
            where = "baseline.json" if name in before else "the benchmarks"
            print(f"FAILED: {name} is in {where} alone: --renew makes a new baseline")
            continue
        # In whole numbers: exactly so many per cent still hold.
        change = (now[name] - before[name]) * 100
        line = f"{name}: {before[name]} before, {now[name]} now, {change / before[name]:+.2f} %"
        if change > TOLERANCE * before[name]:
            failed += 1
            print(f"FAILED: {line}: more than {TOLERANCE} % more")
        elif change < -TOLERANCE * before[name]:
            renewal = True
            print(f"passed: {line}: more than {TOLERANCE} % less")
        else:
            print(f"passed: {line}")
    if renewal:
        print("better than the baseline: --renew makes a new one, else what was won may be lost again unseen")
    return failed


def report(before, now):
    """Of other tools: every difference, and nothing fails."""
    for name in sorted(before.keys() | now.keys()):
        if name in before and name in now:
            print(f"{name}: {before[name]} there, {now[name]} here, {(now[name] / before[name] - 1) * 100:+.2f} %")
        else:
            print(f"{name}: only {'there' if name in before else 'here'}")
    return 0


def counted():
    """The instructions of every benchmark by name, from gungraun's summaries: one a line."""
    bench = ["cargo", "bench", "--locked", "--bench", "instructions", "--", "--output-format=json"]
    output = subprocess.run(bench, cwd=HERE, stdout=subprocess.PIPE, text=True)
    if output.returncode:
        sys.exit(f"{output.stdout}{' '.join(bench)} failed")
    summaries = [json.loads(line) for line in output.stdout.splitlines() if line.startswith("{")]
    counts = dict(sorted(map(count, summaries)))
    if not counts or len(counts) != len(summaries):
        sys.exit(f"{len(summaries)} summaries of {len(counts)} benchmarks")
    return counts


def count(summary):
    [total] = [profile["data"]["total"] for profile in summary["profiles"] if profile["tool"] == "Callgrind"]
    name = f"{summary['group']}: {summary['function_name']} {summary['id']}"
    return name, total["metrics"]["Ir"]["values"]["new"]


def toolchain():
    rustc = subprocess.check_output([os.environ.get("RUSTC", "rustc"), "-V"], cwd=HERE, text=True)
    return {"rustc": rustc.strip(), "machine": os.uname().machine, "libc": os.confstr("CS_GNU_LIBC_VERSION")}


def told(made_with):
    return ", ".join(made_with.values())


if __name__ == "__main__":
    main()
