#!/usr/bin/env python3
"""Runs the tests with real clients, or the load checks, against a wsguard binary:

    tests/clients/run.py {clients,load} [--binary target/release/wsguard] [--only FILE]

The packages of package.json and requirements.txt go, in the versions written there, into target/clients. Everything talks
on the loopback addresses alone and ends by itself. Ends with one line: `clients: N passed, N failed, N skipped`."""

import argparse
import hashlib
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR") or HERE.parents[1] / "target").resolve()
# The seconds after which a file that hangs is ended.
FILES = {
    "clients": {
        "ws.test.mjs": 180,
        "test_websockets.py": 180,
        "socketio.test.mjs": 180,
        "messages.test.mjs": 180,
        "test_systemd.py": 180,
        "test_ghosts.py": 120,
        "test_no_room.py": 120,
        "test_mounts.py": 120,
        "test_refused_calls.py": 120,
        "test_alerts.py": 300,
        "test_examples.py": 240,
        "proxies.test.mjs": 360,
        "checks.test.mjs": 120,
        "frameworks.test.mjs": 180,
        "readme.test.mjs": 480,
        "chromium.test.mjs": 480,
    },
    "load": {"test_idle.py": 240, "test_stalls.py": 480, "test_flood.py": 480, "test_fairness.py": 300},
}


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("group", choices=FILES)
    arguments.add_argument("--binary", type=pathlib.Path, default=TARGET / "release" / "wsguard")
    arguments.add_argument("--only", metavar="FILE", help="one file of the group")
    arguments = arguments.parse_args()
    files = {name: limit for name, limit in FILES[arguments.group].items() if arguments.only in (None, name)}
    if not arguments.binary.is_file():
        sys.exit(f"{arguments.binary} is not there: cargo build --release makes it")
    if not files:
        sys.exit(f"{arguments.group} has {', '.join(FILES[arguments.group])}")

    modules = installed()
    environment = os.environ | {
        "WSGUARD": str(arguments.binary.resolve()),
        "CLIENT_MODULES": str(modules),
        "PYTHONPATH": str(modules / "python"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    passed = failed = skipped = 0
    for name, limit in files.items():
        print(f"-- {name}", flush=True)
        start = time.monotonic()
        some = run(name, limit, environment)
        passed, failed, skipped = (all_of + of for all_of, of in zip((passed, failed, skipped), some))
        print(f"-- {name}: {told(*some)} in {time.monotonic() - start:.0f} s", flush=True)
    print(f"{arguments.group}: {told(passed, failed, skipped)}")
    sys.exit(1 if failed or not passed else 0)


def told(passed, failed, skipped):
    return f"{passed} passed, {failed} failed, {skipped} skipped"


def installed():
    """The folder with node_modules and python/, filled where it is not yet as package-lock.json and requirements.txt say."""
    wanted = [HERE / name for name in ("package.json", "package-lock.json", "requirements.txt")]
    mark = hashlib.sha256(b"".join(file.read_bytes() for file in wanted)).hexdigest()
    folder = TARGET / "clients"
    stamp = folder / "installed"
    if stamp.is_file() and stamp.read_text() == mark:
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for file in wanted:
        shutil.copy(file, folder)
    subprocess.run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"], cwd=folder, check=True)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--root-user-action=ignore", "--target", folder / "python"]
    subprocess.run([*pip, "-r", folder / "requirements.txt"], check=True)
    stamp.write_text(mark)
    return folder


def run(name, limit, environment):
    """Runs one file; how many of its tests passed, failed and were skipped. One that ends badly counts as a failure."""
    with tempfile.TemporaryDirectory(prefix="wsguard-clients-") as folder:
        count = pathlib.Path(folder) / "count"
        if name.endswith(".mjs"):
            reporters = [("spec", "stdout"), ("tap", count)]
            command = ["node", "--test"]
            for reporter, to in reporters:
                command += [f"--test-reporter={reporter}", f"--test-reporter-destination={to}"]
            command.append(HERE / name)
            numbers = r"^# pass (\d+)$", r"^# (?:fail|cancelled) (\d+)$", r"^# (?:skipped|todo) (\d+)$"
        else:
            command = [sys.executable, "-c", COUNTING, count, name.removesuffix(".py")]
            numbers = r"^pass (\d+)$", r"^fail (\d+)$", r"^skip (\d+)$"
        # A process group of its own: what hangs is ended with all that it started.
        process = subprocess.Popen(command, cwd=HERE, env=environment, stdin=subprocess.DEVNULL, start_new_session=True)
        try:
            status = process.wait(limit)
        except subprocess.TimeoutExpired:
            print(f"{name} was ended after {limit} s", flush=True)
            os.killpg(process.pid, signal.SIGTERM)
            time.sleep(2)
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            status = -1
        text = count.read_text() if count.exists() else ""
    passed, failed, skipped = (sum(map(int, re.findall(pattern, text, re.MULTILINE))) for pattern in numbers)
    return passed, failed or (1 if status else 0), skipped


# unittest's own runner, and its numbers in a file.
COUNTING = """
import pathlib, sys, unittest
count, module = sys.argv[1:]
result = unittest.TextTestRunner(stream=sys.stdout, verbosity=2).run(unittest.defaultTestLoader.loadTestsFromName(module))
failed = len(result.failures) + len(result.errors) + len(result.unexpectedSuccesses)
skipped = len(result.skipped) + len(result.expectedFailures)
passed = result.testsRun - failed - skipped
pathlib.Path(count).write_text(f"pass {passed}\\nfail {failed}\\nskip {skipped}\\n")
sys.exit(bool(failed))
"""

if __name__ == "__main__":
    main()
