"""systemd's own tools: wsguard on sockets that systemd-socket-activate bound, its unit files, and the watchdog when a worker
is stuck."""

import contextlib
import ctypes
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import unittest

from rig import HERE, REQUEST, Backend, Program, connect, echo, event, until, upgrade

UNITS = HERE.parents[1] / "systemd"
PTRACE_ATTACH, PTRACE_DETACH, WALL = 16, 17, 0x40000000


def needs(tool):
    return unittest.skipUnless(shutil.which(tool), f"{tool} is not here; Debian has it in the package systemd")


class Manager:
    """What hears wsguard's notifications."""

    def __init__(self, folder):
        self.path = pathlib.Path(folder) / "notify"
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.socket.bind(str(self.path))

    def heard(self):
        """What came since the last time."""
        messages = []
        with contextlib.suppress(BlockingIOError):
            while True:
                messages.append(self.socket.recv(4096).decode())
        return messages

    def hears(self, part, seconds=10):
        all_heard = []

        def look():
            all_heard.extend(self.heard())
            return any(part in message for message in all_heard)

        until(f"{part!r} is heard", look, seconds)
        return all_heard

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()


@needs("systemd-socket-activate")
class SocketActivation(unittest.TestCase):
    def test_two_named_sockets_are_served_reloaded_drained_and_served_again(self):
        with Backend() as backend, tempfile.TemporaryDirectory() as folder, Manager(folder) as manager:
            web, other = free_ports(2)
            file = pathlib.Path(folder) / "wsguard.toml"
            # By name alone: these addresses are nobody's.
            config = (
                "[server]\ndrain_timeout = '2s'\nwatch_config = false\n"
                "[[listener]]\nname = 'other'\nbind = ['127.0.0.1:0']\n[[listener]]\nname = 'web'\nbind = ['127.0.0.1:0']\n"
                f"[upstream.backend]\nservers = ['127.0.0.1:{backend.port}']\n[admin]\nlisten = '127.0.0.1:0'\n"
            )
            file.write_text(config)
            command = ["systemd-socket-activate", "-l", f"127.0.0.1:{web}", "-l", f"127.0.0.1:{other}"]
            command += ["--fdname=web:other", f"--setenv=NOTIFY_SOCKET={manager.path}", os.environ["WSGUARD"], "run", "-c", file]
            for _ in range(2):
                with Program(*command) as guard:
                    until("the sockets are bound", lambda: is_listening(web) and is_listening(other))
                    # The first connection starts it, and is served.
                    with upgrade(web) as first, upgrade(other) as second:
                        manager.hears("READY=1")
                        guard.find(lambda line: event(line, "ready"), "ready")
                        bound = {said["listener"]: said["address"] for said in map(listening, guard.lines) if said}
                        self.assertEqual(bound, {"web": f"127.0.0.1:{web}", "other": f"127.0.0.1:{other}"})
                        file.write_text(config + "[limits]\nper_ip = 3\n")
                        os.kill(guard.pid, signal.SIGHUP)
                        guard.find(lambda line: event(line, "reloaded"), "a reload")
                        manager.hears("READY=1")
                        with upgrade(web) as third:
                            for client in (first, second, third):
                                echo(client, b"still here")
                            with connect(other) as fourth:
                                fourth.sendall(REQUEST)
                                self.assertTrue(fourth.recv(4096).startswith(b"HTTP/1.1 429 "))
                            os.kill(guard.pid, signal.SIGTERM)
                            manager.hears("STOPPING=1")
                            for client in (first, second, third):
                                self.assertEqual(close_code(client), 1012)
                    self.assertEqual(guard.process.wait(10), 0)
                file.write_text(config)


@needs("systemd-analyze")
class Units(unittest.TestCase):
    def test_systemd_understands_the_units(self):
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            for unit in UNITS.iterdir():
                (folder / unit.name).write_text(unit.read_text().replace("/usr/local/bin/wsguard", os.environ["WSGUARD"]))
            command = ["systemd-analyze", "verify", "--man=no", *map(str, folder.iterdir())]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            said = (done.stdout + done.stderr).splitlines()
            if any("Failed to connect" in line or "Failed to initialize manager" in line for line in said):
                self.skipTest(f"systemd-analyze does not run here: {said}")
            # Before 253 systemd does not know it; the unit says what is to be done then.
            said = [line for line in said if "notify-reload" not in line]
            self.assertEqual((done.returncode, said), (0, []))


class Watchdog(unittest.TestCase):
    def test_it_is_not_told_that_all_is_well_while_a_worker_is_stuck(self):
        with Backend() as backend, tempfile.TemporaryDirectory() as folder, Manager(folder) as manager:
            file = pathlib.Path(folder) / "wsguard.toml"
            file.write_text(
                "[server]\nworkers = 2\n[[listener]]\nbind = ['127.0.0.1:0']\n[admin]\nlisten = '127.0.0.1:0'\n"
                f"[upstream.backend]\nservers = ['127.0.0.1:{backend.port}']\n"
            )
            command = ["env", f"NOTIFY_SOCKET={manager.path}", "WATCHDOG_USEC=2000000", os.environ["WSGUARD"], "run", "-c", file]
            with Program(*command) as guard:
                manager.hears("READY=1")
                for _ in range(3):
                    manager.hears("WATCHDOG=1", 3)
                with stuck(thread_of(guard.pid, "worker-1")):
                    told = guard.find(lambda line: event(line, "watchdog"), "a line that says why")
                    self.assertIn("worker 1 ", told["message"])
                    manager.heard()
                    time.sleep(3)
                    self.assertNotIn("WATCHDOG=1\n", manager.heard())
                manager.hears("WATCHDOG=1", 3)


def listening(line):
    return event(line, "listening")


def close_code(sock):
    """The code of the close frame that is the next thing to come."""
    head = sock.recv(4)
    assert head[:1] == b"\x88", head
    return int.from_bytes(head[2:4], "big")


def free_ports(count):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in sockets]


def is_listening(port):
    """Asks the kernel, and not by a connection: that would start the service."""
    lines = pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]
    return any(line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "0A" for line in lines)


def thread_of(pid, name):
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        if (task / "comm").read_text().strip() == name:
            return int(task.name)
    raise AssertionError(f"no thread {name}")


@contextlib.contextmanager
def stuck(thread):
    """One thread stands still, and the others of its process do not."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    if libc.ptrace(PTRACE_ATTACH, thread, None, None):
        raise OSError(ctypes.get_errno(), "ptrace")
    os.waitpid(thread, WALL)
    try:
        yield
    finally:
        libc.ptrace(PTRACE_DETACH, thread, None, None)


if __name__ == "__main__":
    unittest.main()
