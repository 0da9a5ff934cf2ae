"""12 000 sockets that never finish their request, half of them silent and half with half a head, from many addresses of
this machine's own and as PROXY sources: an honest newcomer's handshake takes at most twice its quiet time, and 100 ms.

Quiet and loaded windows alternate, and each loaded one is compared with the quiet ones on either side of it. While the flood
comes in newcomers are measured too; there only the 100 ms count, since the flood then takes this machine's processors."""

import gc
import itertools
import math
import random
import select
import statistics
import time
import unittest

from rig import REQUEST, Backend, Guard, connect, proxy_v2, reset, sockets_for, until, upgrade

FLOOD = 12_000
HALF_A_HEAD = REQUEST[: len(REQUEST) // 2]
ROUNDS = 9
# Of each window: what else the machine does for a moment is to fill a small part of it.
NEWCOMERS = 600
# While one flood comes.
AMID = 300
SAME_64 = 300
# What the guard lets one client key have pending, by default.
PENDING_PER_KEY = 50
PENDING = 'wsguard_pending{listener="front"}'
ACCEPTED = 'wsguard_accepted_total{listener="front"}'


class Flood(unittest.TestCase):
    def setUp(self):
        sockets_for(FLOOD + AMID)
        self.held = []
        # A collection amid thousands of sockets is this process's pause, not the guard's.
        gc.disable()
        self.addCleanup(gc.enable)

    def tearDown(self):
        self.let_go()

    def let_go(self):
        for sock in self.held:
            reset(sock)
        self.held.clear()

    def test_from_many_addresses(self):
        with Backend() as backend, Guard(backend.port, PATIENT, rest=LIMITS) as guard:
            newcomers = itertools.count()

            def dial_one(index):
                # 40 sockets an address: below what one may have pending.
                sock = connect(guard.port, address(index % (FLOOD // 40)))
                if index % 2:
                    sock.sendall(HALF_A_HEAD)
                return sock

            def greet():
                return handshake(guard.port, f"127.77.{next(newcomers) % 250}.7")

            self.measure("from many addresses", guard, dial_one, greet)

    def test_as_proxy_sources(self):
        with Backend() as backend, Guard(backend.port, PROXIED, rest=LIMITS) as guard:
            newcomers = itertools.count()

            def dial_one(index):
                sock = connect(guard.port)
                # A third never sends its PROXY header, a third is silent behind it, a third sends half a head.
                if index % 3:
                    source = f"198.18.{index // 40 % 250}.{index // 10_000 + 1}"
                    sock.sendall(proxy_v2(source) + (HALF_A_HEAD if index % 3 == 2 else b""))
                return sock

            def greet():
                return handshake(guard.port, "127.0.0.1", proxy_v2(f"203.0.113.{next(newcomers) % 250 + 1}"))

            self.measure("as PROXY sources", guard, dial_one, greet)

    def test_one_ipv6_64_of_proxy_sources_keeps_to_its_share(self):
        with Backend() as backend, Guard(backend.port, PROXIED, rest=LIMITS) as guard:
            rng = random.Random(1)

            def greet():
                return handshake(guard.port, "127.0.0.1", proxy_v2("2001:db8:0:2::1"))

            def come():
                for index in range(SAME_64):
                    sock = connect(guard.port)
                    self.held.append(sock)
                    source = "2001:db8:0:1:" + ":".join(f"{rng.randrange(65536):x}" for _ in range(4))
                    sock.sendall(proxy_v2(source) + (HALF_A_HEAD if index % 2 else b""))
                until("the rest of the /64 is ended", lambda: len(self.alive()) <= PENDING_PER_KEY)

            def is_there():
                self.assertEqual(len(self.alive()), PENDING_PER_KEY)
                self.assertEqual(guard.metric(PENDING), PENDING_PER_KEY)

            windows = self.alternate(guard, greet, come, is_there)
            print(f"\nbeside {SAME_64} connections of one IPv6 /64")
            self.judge(*windows)
            guard.settle()

    def measure(self, what, guard, dial_one, greet):
        coming, pending = [], []

        def come():
            before = guard.metric(ACCEPTED)
            for index in range(FLOOD):
                self.held.append(dial_one(index))
                if index % (FLOOD // AMID) == 0:
                    coming.append(greet())
            until("the flood is accepted", lambda: guard.metric(ACCEPTED) >= before + FLOOD + AMID, 20)

        def is_there():
            pending.append(guard.metric(PENDING))
            self.assertGreaterEqual(pending[-1], 1000, "the flood is not there")

        windows = self.alternate(guard, greet, come, is_there)
        print(f"\n{what}: {FLOOD} sockets, of which {pending[-1]:.0f} hold a pending seat")
        print(line("while they come", coming), flush=True)
        self.judge(*windows)
        self.assertEqual(coming.count(math.inf), 0, "newcomers lost while the flood comes")
        self.assertLessEqual(percentile(coming, 99), 0.1, "p99 while the flood comes, in seconds")
        guard.settle()

    def alternate(self, guard, greet, come, is_there):
        """Windows of newcomers: quiet ones, and between each two of them one under load."""

        def window():
            return [greet() for _ in range(NEWCOMERS)]

        window()
        quiet, loaded = [window()], []
        for _ in range(ROUNDS):
            come()
            loaded.append(window())
            is_there()
            self.let_go()
            until("no socket is pending", lambda: guard.metric(PENDING) == 0, 20)
            quiet.append(window())
        return quiet, loaded

    def judge(self, calm, under):
        # What else this machine does changes from one window to the next, so each has its own neighbours to be compared with.
        around = [before + after for before, after in itertools.pairwise(calm)]
        ratios = [statistics.median(mine) / statistics.median(theirs) for mine, theirs in zip(under, around)]
        ratio = statistics.median(ratios)
        quiet, loaded = (list(itertools.chain.from_iterable(windows)) for windows in (calm, under))
        print(line("quiet", quiet))
        print(line("under load", loaded))
        print(f"  under load it takes {ratio:.2f} times as long, of {min(ratios):.2f} to {max(ratios):.2f}", flush=True)
        self.assertEqual((quiet + loaded).count(math.inf), 0, "newcomers lost")
        self.assertLessEqual(ratio, 2, "times as long under load")
        self.assertLessEqual(percentile(loaded, 99), 0.1, "p99 under load, in seconds")

    def alive(self):
        """The sockets that the guard has not ended."""
        poll = select.poll()
        for sock in self.held:
            poll.register(sock, select.POLLIN)
        ended = {fd for fd, _ in poll.poll(0)}
        return [sock for sock in self.held if sock.fileno() not in ended]


def handshake(port, source, before=b""):
    """How long an honest client takes from connect() to the end of the 101, in seconds; infinite when it does not get in."""
    start = time.perf_counter()
    try:
        sock = upgrade(port, source, before)
    except (AssertionError, OSError):
        return math.inf
    took = time.perf_counter() - start
    reset(sock)
    return took


def address(index):
    return f"127.{1 + index // 250}.{index % 250}.9"


def percentile(values, percent):
    ordered = sorted(values)
    return ordered[min(len(ordered) * percent // 100, len(ordered) - 1)]


def line(what, values):
    lost = values.count(math.inf)
    median, p99 = statistics.median(values) * 1000, percentile(values, 99) * 1000
    return f"  {what:16} {len(values)} handshakes: median {median:.2f} ms, p99 {p99:.2f} ms, {lost} lost"


# Longer than a round takes: the flood must still be there when newcomers are measured, whose own rate is not the matter.
PATIENT = 'handshake_timeout = "60s"\n'
PROXIED = PATIENT + "accept_proxy_protocol = true\n"
LIMITS = '[client_ip]\ntrusted_proxies = ["127.0.0.1/32"]\n[limits]\nper_ip_rate = "off"\n'

if __name__ == "__main__":
    unittest.main(verbosity=2)
