"""Where the kernel has no room for one more watch (ENOSPC, as at fs.epoll.max_user_watches): a connection that can't rest
goes on as before, and one that can't come back from a rest is ended, counted and told of. Where it has no local port for a
dial (EADDRNOTAVAIL), another server is dialled, and no server is blamed.

strace refuses the worker's calls of epoll_ctl. By their order: to rest, it adds the two sockets to the watch of its own, and
takes them from the runtime's; to come back it takes them from the watch, and adds them to the runtime's."""

import contextlib
import os
import pathlib
import signal
import tempfile
import unittest

from rig import REQUEST, Backend, Guard, Program, connect, echo, event, is_traced, until, upgrade

SERVER = 'workers = 1\ndrain_delay = "0s"\ndrain_timeout = "4s"'
NO_PORT = ("connect", "EADDRNOTAVAIL")


class NoRoom(unittest.TestCase):
    def test_one_that_cant_rest_goes_on_and_is_still_told(self):
        for refused in (1, 2):
            with self.subTest(refused=refused), Backend() as backend, Guard(backend.port, server=SERVER) as guard:
                with upgrade(guard.port) as client:
                    with refusing(guard, refused) as trace:
                        until("it was refused the rest", lambda: "ENOSPC" in trace(), 10)
                        echo(client, b"still here")
                    self.assertEqual(trace().count("EPOLL_CTL_ADD"), refused, "nothing is tried again")
                    self.assertEqual(trace().count("EPOLL_CTL_DEL"), refused - 1, "only the other one is let go")
                    os.kill(guard.pid, signal.SIGTERM)
                    self.assertEqual(client.recv(64), b"\x88\x02\x03\xf4", "close 1012")

    def test_one_that_cant_come_back_is_ended_and_told_of(self):
        for refused in (7, 8):
            with self.subTest(refused=refused), Backend() as backend, Guard(backend.port, server=SERVER) as guard:
                with upgrade(guard.port) as client, refusing(guard, refused) as trace:
                    until("it rests", lambda: trace().count("EPOLL_CTL_DEL") == 2, 10)
                    client.sendall(b"\x81")
                    # What nobody has read makes a reset of the close.
                    with self.assertRaises(ConnectionResetError):
                        client.recv(64)
                self.assertIn("ENOSPC", trace())
                said = guard.find(lambda line: event(line, "lobby"), "a line of it")["message"]
                self.assertIn("a connection is lost: No space left on device", said)
                guard.settle()
                self.assertEqual(guard.metric('wsguard_closes_total{reason="io",zone="default"}'), 1)
                with upgrade(guard.port) as next_one:
                    echo(next_one, b"there is room again")
                guard.settle()


    def test_without_a_local_port_no_server_is_blamed(self):
        failures = 'wsguard_upstream_dial_failures_total{server="127.0.0.1:%d",upstream="backend"}'
        with Backend() as backend, Guard(backend.port, server=SERVER) as guard:
            with refusing(guard, 1, *NO_PORT), connect(guard.port) as client:
                client.sendall(REQUEST)
                self.assertIn(b"X-Wsguard-Reason: process_full", client.recv(4096))
            line = guard.find(lambda line: event(line, "failed"), "the client's line")
            self.assertIn("net.ipv4.ip_local_port_range", line["message"])
            self.assertEqual(guard.metric(failures % backend.port), 0)
            with refusing(guard, 2, *NO_PORT), upgrade(guard.port) as client:
                echo(client, b"there is a port again")
            guard.settle()

    def test_without_a_local_port_for_one_server_another_is_dialled(self):
        with Backend() as first, Backend() as second:
            both = f'127.0.0.1:{first.port}", "127.0.0.1:{second.port}'
            with Guard(first.port, server=SERVER) as guard:
                guard.file.write_text(guard.file.read_text().replace(f"127.0.0.1:{first.port}", both))
                os.kill(guard.pid, signal.SIGHUP)
                guard.find(lambda line: event(line, "reloaded"), "the reload")
                with refusing(guard, 1, *NO_PORT), upgrade(guard.port) as client:
                    echo(client, b"by the other one")
                guard.settle()


@contextlib.contextmanager
def refusing(guard, nth, call="epoll_ctl", error="ENOSPC"):
    """Has the guard's worker refused its nth call of this kind from here on; what is traced of them all."""
    with tempfile.TemporaryDirectory(prefix="wsguard-clients-") as folder:
        file = pathlib.Path(folder) / "trace"
        calls = ("-e", f"trace={call}", "-e", f"inject={call}:error={error}:when={nth}")
        with Program("strace", "-f", "-qq", *calls, "-o", file, "-p", guard.pid):
            until("strace has every thread", lambda: is_traced(guard.pid))
            last = [""]

            def trace():
                if file.exists():
                    last[0] = file.read_text()
                return last[0]

            yield trace
            trace()


if __name__ == "__main__":
    unittest.main(verbosity=2)
