"""What a connection costs: the system calls of one echo, and the memory of an open connection that has nothing to move."""

import pathlib
import re
import statistics
import tempfile
import time
import unittest

from rig import Backend, Guard, Program, echo, is_traced, reset, sockets_for, until, upgrade

CALLS_AN_ECHO = 6
ECHOES = 40
# A little more than a power of two for each of one, two or four workers: what doubles as it grows is emptiest then.
CONNECTIONS = 5000
BYTES_A_CONNECTION = 2048
BYTES_AT_REST = 768
# A wait of the worker's that ended without an event.
TIMER = "a timer"


class SystemCalls(unittest.TestCase):
    def test_a_single_echo_takes_six_calls(self):
        with Backend() as backend, Guard(backend.port, server="workers = 1") as guard, upgrade(guard.port) as client:
            for _ in range(20):
                echo(client, b"warm")
            with tempfile.TemporaryDirectory(prefix="wsguard-clients-") as folder:
                trace = pathlib.Path(folder) / "trace"
                with Program("strace", "-f", "-qq", "-s", "64", "-o", trace, "-p", guard.pid):
                    until("strace has every thread", lambda: is_traced(guard.pid))
                    for mark in range(ECHOES + 1):
                        echo(client, f"mark {mark:04} ends".encode())
                        # As one message at a time comes: the worker is asleep again before the next one.
                        time.sleep(0.005)
                    until("the trace has the last mark", lambda: f"mark {ECHOES:04} ends" in trace.read_text())
                    calls = calls_between_marks(trace.read_text())
            self.assertEqual(len(calls), ECHOES)
            usual = max(calls, key=len)
            print(f"\n{ECHOES} echoes, one at a time: median {statistics.median(map(len, calls))}, most {len(usual)} calls")
            print(f"  the usual: {' '.join(statistics.mode(map(tuple, calls)))}\n  the most:  {' '.join(usual)}", flush=True)
            self.assertLessEqual(statistics.median(map(len, calls)), CALLS_AN_ECHO)
            # A timer of the worker's may fall between two marks, by itself or together with one of them. Nothing else may.
            above = [names for names in calls if len(names) > CALLS_AN_ECHO and TIMER not in names]
            self.assertLessEqual(len(above), 1, f"echoes of more than {CALLS_AN_ECHO} calls: {above}")


class Memory(unittest.TestCase):
    def test_an_idle_connection_holds_no_buffer(self):
        sockets_for(CONNECTIONS)
        rest = '[limits]\nper_ip_rate = "off"\n'
        with Backend() as backend, Guard(backend.port, rest=rest) as guard:
            # Code and tables that the first connections touch belong to the guard, not to a connection.
            for warm in [upgrade(guard.port) for _ in range(40)]:
                echo(warm, b"x" * 65_536)
                reset(warm)
            guard.settle()
            before = pss(guard.pid)
            clients = []
            try:
                for index in range(CONNECTIONS):
                    clients.append(upgrade(guard.port, f"127.3.{index // 40}.1"))
                for said in (None, b"x" * 125, b"x" * 65_536):
                    for client in clients if said else ():
                        echo(client, said)
                    time.sleep(1.5)
                    each = (pss(guard.pid) - before) / CONNECTIONS
                    after = f"after a message of {len(said)} bytes each" if said else "before any message"
                    print(f"\n{CONNECTIONS} idle connections {after}: {each:.0f} bytes each", end="", flush=True)
                    self.assertLess(each, BYTES_A_CONNECTION, f"bytes of PSS a connection {after}")
                # After five seconds of silence they are parked, some thousand a second. The allocator gives pages back ten
                # seconds after they were freed, but looks for few of them only every ten seconds.
                time.sleep(35)
                each = (pss(guard.pid) - before) / CONNECTIONS
                print(f"\n{CONNECTIONS} connections at rest: {each:.0f} bytes each", end="", flush=True)
                self.assertLess(each, BYTES_AT_REST, "bytes of PSS a connection at rest")
                self.assertEqual(guard.metric("wsguard_process_connections"), CONNECTIONS)
                print(flush=True)
            finally:
                for client in clients:
                    reset(client)
            guard.settle()


def calls_between_marks(trace):
    """The names of the calls that the worker made from each mark's arrival to the next one's."""
    spoken = re.compile(r"^(\d+) +(?:<\.\.\. )?(\w+)(?: resumed>|\()")
    worker, calls, mark = None, [], -1
    for text in trace.splitlines():
        match = spoken.match(text)
        if not match:
            continue
        thread, name = match.groups()
        arrived = re.search(r"mark (\d{4}) ends", text)
        if arrived and int(arrived[1]) == mark + 1:
            worker, mark = thread, mark + 1
            calls.append([])
        if thread == worker and re.match("epoll_p?wait", name) and text.endswith("= 0"):
            name = TIMER
        # An unfinished call is counted where it began.
        if thread == worker and ("resumed>" not in text or name == TIMER):
            calls[-1].append(name)
    return calls[:-1]


def pss(pid):
    """The process's own memory in bytes: its proportional set size."""
    for text in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if text.startswith("Pss:"):
            return int(text.split()[1]) * 1024
    raise AssertionError("no Pss in smaps_rollup")


if __name__ == "__main__":
    unittest.main(verbosity=2)
