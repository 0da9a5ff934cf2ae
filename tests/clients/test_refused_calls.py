"""Where the kernel refuses a call that wsguard can do without (a sandbox's filter, gVisor): it starts and serves all the same,
says so once, and no connection ends for it.

strace refuses the calls. It stands aside as a grandchild (-D), so that wsguard is the process that was started."""

import os
import pathlib
import signal
import subprocess
import tempfile
import unittest

from rig import Backend, Guard, echo, event, until, upgrade

OPTIONS = {
    "SO_REUSEADDR", "SO_REUSEPORT", "IPV6_V6ONLY", "TCP_NODELAY", "TCP_NOTSENT_LOWAT", "TCP_USER_TIMEOUT", "SO_KEEPALIVE",
    "TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "SO_LINGER",
}  # fmt: skip
# What is not at its default is set on every client's leg, too.
TIMEOUTS = '[limits.timeouts]\nstalled = "5s"\nkeepalive = "30s"\n'


def refusing(call, error):
    return ("strace", "-D", "-f", "-qq", "-o", os.devnull, "-e", f"trace={call}", "-e", f"inject={call}:error={error}")


class RefusedCalls(unittest.TestCase):
    def test_without_a_single_option_it_serves_and_says_once_of_each_that_it_is_refused(self):
        for error in ("ENOPROTOOPT", "EPERM"):
            server = 'workers = 1\ndrain_timeout = "2s"'
            under = refusing("setsockopt", error)
            with self.subTest(error=error), Backend() as backend:
                with Guard(backend.port, server=server, rest=TIMEOUTS, under=under) as guard:
                    with upgrade(guard.port) as client, upgrade(guard.port) as other:
                        echo(client, b"served")
                        echo(other, bytes(300_000))
                    said = [line["message"] for line in (event(line, "socket_option") for line in guard.lines) if line]
                    named = [message.split("refuses ")[1].split()[0] for message in said]
                    self.assertEqual(sorted(named), sorted(OPTIONS))
                    guard.settle()
                    self.assertEqual(guard.metric("wsguard_accept_errors_total"), 0)
                    with upgrade(guard.port) as client:
                        os.kill(guard.pid, signal.SIGTERM)
                        self.assertEqual(client.recv(64), b"\x88\x02\x03\xf4", "close 1012")
                        until("it ends", lambda: guard.process.poll() is not None)
                    self.assertEqual(guard.process.returncode, 0)
                    refused = guard.find(lambda line: event(line, "listener"), "that the filter is refused")
                    self.assertIn("can't turn newcomers away", refused["message"])

    def test_several_workers_need_one_option_and_it_is_named_with_the_way_out(self):
        with tempfile.TemporaryDirectory(prefix="wsguard-clients-") as folder:
            file = pathlib.Path(folder) / "wsguard.toml"
            file.write_text(
                '[server]\nworkers = 2\n[[listener]]\nbind = ["127.0.0.1:0"]\n'
                '[upstream.backend]\nservers = ["127.0.0.1:1"]\n[admin]\nlisten = "off"\n'
            )
            command = [*refusing("setsockopt", "EPERM"), os.environ["WSGUARD"], "run", "-c", str(file)]
            ended = subprocess.run(command, capture_output=True, text=True, timeout=30)
        self.assertEqual(ended.returncode, 1, ended.stderr)
        self.assertIn("several workers need SO_REUSEPORT", ended.stderr)
        self.assertIn("`workers = 1` does without", ended.stderr)

    def test_without_pipes_or_splice_large_frames_pass_all_the_same(self):
        for call in ("pipe2", "splice"):
            for error in ("EPERM", "ENOSYS", "EINVAL"):
                with self.subTest(call=call, error=error), Backend() as backend:
                    with Guard(backend.port, under=refusing(call, error)) as guard:
                        with upgrade(guard.port) as client:
                            for _ in range(3):
                                echo(client, bytes(200_000))
                        guard.settle()


if __name__ == "__main__":
    unittest.main(verbosity=2)
