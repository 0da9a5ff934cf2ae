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
SERVICE = (UNITS / "wsguard.service").read_text()
SOCKET = (UNITS / "wsguard.socket").read_text()
INSTALLED = HERE.parents[1] / "conf" / "installed.toml"
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


    def test_the_socket_unit_serves_the_installed_file_and_reloads_it_as_the_service_unit_says(self):
        with Backend() as backend, tempfile.TemporaryDirectory() as folder, Manager(folder) as manager:
            hosts = [address.rsplit(":", 1)[0] for address in settings(SOCKET, "ListenStream")]
            self.assertGreater(len(hosts), 1)
            (name,) = settings(SOCKET, "FileDescriptorName")
            ports = free_ports(len(hosts))
            file = pathlib.Path(folder) / "wsguard.toml"
            good = installed(backend.port) + "[limits]\nper_ip = 7\n"
            file.write_text(good)
            command = ["systemd-socket-activate", f"--fdname={':'.join([name] * len(hosts))}"]
            command += [f"--listen={host}:{port}" for host, port in zip(hosts, ports)]
            command += [f"--setenv=NOTIFY_SOCKET={manager.path}", *as_written("ExecStart", file)[0]]
            with Program(*command) as guard:
                until("the sockets are bound", lambda: all(is_listening(port) for port in ports))
                clients = []
                with contextlib.ExitStack() as stack:
                    for host, port in zip(hosts, ports):
                        clients.append(stack.enter_context(upgrade(port, host.strip("[]"))))
                        echo(clients[-1], b"served")
                    manager.hears("READY=1")

                    file.write_text(good + "per_ip_rat = 1\n")
                    self.assertNotEqual(reload(file, guard.pid), 0)
                    time.sleep(0.5)
                    for tried in ("reload_refused", "reloaded"):
                        self.assertFalse([line for line in guard.lines if event(line, tried)])
                    self.assertNotIn("RELOADING=1", "".join(manager.heard()))

                    file.write_text(good.replace("per_ip = 7", "per_ip = 8"))
                    self.assertEqual(reload(file, guard.pid), 0)
                    guard.find(lambda line: event(line, "reloaded"), "a reload")
                    said = "".join(manager.hears("READY=1"))
                    self.assertIn("RELOADING=1", said)
                    for client in clients:
                        echo(client, b"still here")
                    for host, port in zip(hosts, ports):
                        with upgrade(port, host.strip("[]")) as newcomer:
                            echo(newcomer, b"served too")
                    os.kill(guard.pid, signal.SIGTERM)
                self.assertEqual(guard.process.wait(10), 0)


class Units(unittest.TestCase):
    @needs("systemd-analyze")
    def test_systemd_understands_the_units(self):
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            for name, unit in (("wsguard.service", SERVICE), ("wsguard.socket", SOCKET)):
                (folder / name).write_text(unit.replace("/usr/bin/wsguard", os.environ["WSGUARD"]))
            command = ["systemd-analyze", "verify", "--man=no", *map(str, folder.iterdir())]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            said = (done.stdout + done.stderr).splitlines()
            if any("Failed to connect" in line or "Failed to initialize manager" in line for line in said):
                self.skipTest(f"systemd-analyze does not run here: {said}")
            self.assertEqual((done.returncode, said), (0, []))

    @needs("systemd-analyze")
    def test_systemd_scores_the_sandbox_at_one_and_a_half_or_better(self):
        # A socket unit runs nothing, and has no sandbox to be scored.
        command = ["systemd-analyze", "security", "--no-pager", "--offline=true", "--threshold=15"]
        command.append(UNITS / "wsguard.service")
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn("Overall exposure level for wsguard.service", done.stdout)

    @needs("systemd-analyze")
    @needs("strace")
    @needs("setpriv")
    def test_wsguard_runs_with_the_calls_address_families_and_rights_that_the_sandbox_leaves(self):
        """As nobody, without a capability, and what systemd would deny fails as it would: by strace's hand."""
        with Backend() as backend, tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            folder.chmod(0o777)
            # Not every folder above the binary may be entered by everybody.
            binary = pathlib.Path(shutil.copy(os.environ["WSGUARD"], folder))
            file, trace = folder / "wsguard.toml", folder / "trace"
            text = installed(backend.port).replace(":8080", ":0") + "[limits]\nper_ip = 7\n"
            # A name, so that the resolver is asked.
            file.write_text(text.replace("127.0.0.1:3000", "localhost:3000"))
            denied = ",".join(f"?{call}" for call in sorted(denied_calls()))
            # -D: what is started here is wsguard, and strace is its child.
            command = [*unprivileged(), "strace", "-D", "-f", "-qq", f"-o{trace}", "-esignal=none"]
            command += [f"-etrace=socket,{denied}", f"-einject={denied}:error=EPERM", *as_written("ExecStart", file, binary)[0]]
            with Program(*command) as guard:
                guard.find(lambda line: event(line, "ready"), "ready", 30)
                port = int(guard.find(listening, "listening")["address"].rsplit(":", 1)[1])
                with upgrade(port) as client:
                    echo(client, b"served")
                    echo(client, b"x" * 60_000)
                    file.write_text(file.read_text().replace("per_ip = 7", "per_ip = 8"))
                    os.kill(guard.pid, signal.SIGHUP)
                    guard.find(lambda line: event(line, "reloaded"), "a reload")
                    echo(client, b"still here")
                os.kill(guard.pid, signal.SIGTERM)
                self.assertEqual(guard.process.wait(10), 0, "\n".join(guard.lines))
                self.assertFalse([line for line in guard.lines if event(line, "panic")])
            lines = trace.read_text().splitlines()
            families = {line.split("socket(")[1].split(",")[0] for line in lines if "socket(" in line}
            self.assertGreater(families, set())
            self.assertLessEqual(families, set(settings(SERVICE, "RestrictAddressFamilies")[0].split()))
            self.assertEqual([line for line in lines if "socket(" not in line and "(" in line], [])


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


def settings(unit, key):
    """The values of a unit's key, in order."""
    return [line.split("=", 1)[1] for line in unit.splitlines() if line.startswith(f"{key}=")]


def as_written(key, file, binary=None, main=None):
    """The commands of the service unit, with the program, the file and the process of this test in place of its own."""
    replaced = {"/usr/bin/wsguard": str(binary or os.environ["WSGUARD"]), "/etc/wsguard/wsguard.toml": str(file)}
    replaced["$MAINPID"] = str(main)
    return [[replaced.get(word, word) for word in command.split()] for command in settings(SERVICE, key)]


def reload(file, main):
    """What `systemctl reload` does: one command after the other, up to the first that fails. How the last one ended."""
    for command in as_written("ExecReload", file, main=main):
        ended = subprocess.run(command, capture_output=True, check=False).returncode
        if ended:
            return ended
    return 0


def installed(backend):
    """The file of the package, before this backend. It is not watched: what applies it must be the reload."""
    text = INSTALLED.read_text().replace("127.0.0.1:3000", f"127.0.0.1:{backend}")
    return text + "[server]\nwatch_config = false\ndrain_timeout = '1s'\n[admin]\nlisten = '127.0.0.1:0'\n"


def denied_calls():
    """Every call that systemd knows and the service unit does not let through."""
    known, allowed = calls("@known"), set()
    for value in settings(SERVICE, "SystemCallFilter"):
        words = value.lstrip("~").split()
        named = set().union(*(calls(word) for word in words))
        allowed = allowed - named if value.startswith("~") else allowed | named
    assert allowed and known - allowed
    return known - allowed


def calls(name):
    """What a name in SystemCallFilter stands for."""
    if not name.startswith("@"):
        return {name}
    command = ["systemd-analyze", "syscall-filter", name]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    words = [line.strip() for line in listed.splitlines()[1:]]
    return set().union(*(calls(word) for word in words if word and not word.startswith("#")))


def unprivileged():
    """Who is root gives up what the service never has."""
    if os.geteuid():
        return ["setpriv", "--no-new-privs"]
    nobody = ["--reuid=65534", "--regid=65534", "--clear-groups"]
    return ["setpriv", *nobody, "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"]


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
    tables = (pathlib.Path(f"/proc/net/{name}") for name in ("tcp", "tcp6"))
    lines = [line for table in tables if table.exists() for line in table.read_text().splitlines()[1:]]
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
