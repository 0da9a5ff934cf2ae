"""A client whose sockets have lost their network, in network namespaces: two machines of one household, which is one client,
for they share an IPv6 /64. One of them fills the cap and loses its network; the other one comes."""

import contextlib
import os
import pathlib
import shutil
import subprocess
import sys
import time
import unittest

from rig import HERE, Backend, Guard, Program, until

# Of RFC 4193, and nobody's but this test's while it runs.
HOUSEHOLD = "fd5e:11ed:9057:1"
GUARD = "fd5e:11ed:9057:2::1"
CAP = 5
# Who was silent for as long as `ping` says is asked, and not before.
SILENT = 1.5
# Opens as many connections as it is told to, one after the other, and says how each went.
CLIENT = """
import sys, time
sys.path.insert(0, sys.argv[1])
from rig import REQUEST
import socket
held = []
for line in sys.stdin:
    begun = time.monotonic()
    sock = socket.create_connection((sys.argv[2], int(sys.argv[3])), timeout=10)
    sock.sendall(REQUEST)
    answer = sock.recv(4096).decode(errors="replace").partition("\\r\\n")[0]
    held.append(sock)
    print(f"{answer}; {time.monotonic() - begun:.3f}", flush=True)
"""


def why_not():
    """Why there can be no namespaces here; nothing where there can."""
    if not shutil.which("ip"):
        return "ip is not here; Debian has it in the package iproute2"
    name = f"wsguard-try-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    if made.returncode:
        return f"network namespaces are not permitted: {made.stderr.strip()}"
    veth = ["ip", "link", "add", f"wsgt{os.getpid()}", "type", "veth", "peer", "name", f"wsgu{os.getpid()}"]
    made = subprocess.run(veth, capture_output=True, text=True)
    subprocess.run(["ip", "link", "del", f"wsgt{os.getpid()}"], capture_output=True)
    subprocess.run(["ip", "netns", "del", name], check=True)
    if made.returncode:
        return f"virtual links are not permitted: {made.stderr.strip()}"
    try:
        return None if pathlib.Path("/proc/sys/net/ipv6/conf/all/disable_ipv6").read_text().strip() == "0" else "IPv6 is off"
    except OSError:
        return "IPv6 is off"


class Machine:
    """A namespace with one link to the guard, and a client in it."""

    def __init__(self, number):
        self.name = f"wsguard-{number}-{os.getpid()}"
        self.here, self.there = f"wsga{number}{os.getpid()}", f"wsgb{number}{os.getpid()}"
        self.address = f"{HOUSEHOLD}::{number}"

    def __enter__(self):
        ip("netns", "add", self.name)
        try:
            ip("link", "add", self.here, "type", "veth", "peer", "name", self.there, "netns", self.name)
            ip("link", "set", self.here, "up")
            self.inside("link", "set", self.there, "up")
            self.inside("address", "add", f"{self.address}/128", "dev", self.there, "nodad")
            self.inside("-6", "route", "add", GUARD, "dev", self.there)
            # Who asks for a neighbour is answered by the interface that has the address.
            ip("-6", "address", "add", f"{GUARD}/128", "dev", self.here, "nodad")
            ip("-6", "route", "add", self.address, "dev", self.here)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        # A namespace goes when nobody is in it any more, and takes its time; the next test wants the same addresses at once.
        subprocess.run(["ip", "link", "del", self.here], capture_output=True)
        ip("netns", "del", self.name)

    def inside(self, *arguments):
        ip("-n", self.name, *arguments)

    def lose_network(self):
        """What comes for it from here on is dropped without a word."""
        self.inside("address", "del", f"{self.address}/128", "dev", self.there)

    def client(self, port):
        return Client("ip", "netns", "exec", self.name, sys.executable, "-c", CLIENT, HERE, GUARD, port)


class Client(Program):
    """Connects when it is asked to."""

    def __init__(self, *command):
        super().__init__(*command, stdin=subprocess.PIPE)
        self.asked = 0

    def connects(self):
        """The answer's first line, and how many seconds it took."""
        self.asked += 1
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()
        until(f"answer {self.asked}", lambda: len(self.lines) >= self.asked, 15)
        status, _, seconds = self.lines[self.asked - 1].partition("; ")
        if not seconds:
            raise AssertionError("\n".join(self.lines))
        return status, float(seconds)


@unittest.skipIf(reason := why_not(), reason)
class Ghosts(unittest.TestCase):
    def setUp(self):
        self.stack = contextlib.ExitStack()
        self.addCleanup(self.stack.close)
        enter = self.stack.enter_context
        ip("-6", "address", "add", f"{GUARD}/128", "dev", "lo", "nodad")
        self.stack.callback(ip, "-6", "address", "del", f"{GUARD}/128", "dev", "lo")
        self.guard = enter(
            Guard(
                enter(Backend()).port,
                bind=f"[{GUARD}]",
                rest=f"[limits]\nper_ip = {CAP}\n[limits.messages]\nping = '1s'\npong_timeout = '30s'",
            )
        )
        self.phone, self.tablet = enter(Machine(2)), enter(Machine(3))
        self.old = enter(self.phone.client(self.guard.port))
        self.new = enter(self.tablet.client(self.guard.port))
        for _ in range(CAP):
            self.assertIn("101", self.old.connects()[0])

    def test_a_newcomer_gets_the_slot_of_one_that_lost_its_network(self):
        self.phone.lose_network()
        time.sleep(SILENT)
        status, seconds = self.new.connects()
        self.assertIn("101", status)
        self.assertLess(seconds, 2)
        until("one is replaced", lambda: self.replaced() == 1)
        self.assertEqual(self.guard.metric('wsguard_connections{zone="default"}'), CAP)

    def test_a_newcomer_of_a_client_that_is_there_hears_429(self):
        time.sleep(SILENT)
        status, seconds = self.new.connects()
        self.assertIn("429", status)
        self.assertLess(seconds, 2)
        self.assertEqual(self.replaced(), 0)
        self.assertEqual(self.guard.metric('wsguard_connections{zone="default"}'), CAP)

    def replaced(self):
        return self.guard.metric('wsguard_ghosts_total{outcome="replaced",zone="default"}')


def ip(*arguments):
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


if __name__ == "__main__":
    unittest.main()
