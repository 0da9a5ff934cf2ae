"""What the tests in Python share: a guard started from TOML text, the server behind it, and sockets by hand."""

import collections
import contextlib
import http.client
import json
import os
import pathlib
import re
import resource
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).parent
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
REQUEST = (
    "GET /chat HTTP/1.1\r\nHost: chat.example.org\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    f"Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n"
).encode()
SWITCHED = (
    f"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
).encode()
# linux/in.h: bind to an address, and leave the choice of the port to connect().
IP_BIND_ADDRESS_NO_PORT = 24


class Program:
    """A program that is killed, by its own process id, when it is left."""

    def __init__(self, *command, stdin=subprocess.DEVNULL):
        self.lines = collections.deque(maxlen=2000)
        self.process = subprocess.Popen(
            [str(part) for part in command], stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        self.pid = self.process.pid
        self._reads = threading.Event()
        self._reads.set()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.process.stdout:
            self._reads.wait()
            self.lines.append(line.decode(errors="replace").rstrip())

    def stop_reading(self):
        """What the program writes from here on fills its pipe, and waits there."""
        self._reads.clear()

    def find(self, wanted, what, seconds=10):
        """The first line that `wanted` gives something true for; what it gives."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for line in list(self.lines):
                found = wanted(line)
                if found:
                    return found
            if self.process.poll() is not None:
                break
            time.sleep(0.02)
        raise AssertionError(f"{what} did not come from {self.process.args}:\n" + "\n".join(list(self.lines)[-40:]))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        if self.process.stdin:
            self.process.stdin.close()
        self._reads.set()
        self._reader.join()
        self.process.stdout.close()


class Guard(Program):
    """wsguard with one listener, on a port of the kernel's choice, before the server on port `backend`.

    `listener` and `server` hold further lines of these tables, `rest` further tables. `under` is a program that is given the
    guard's command line to run in its own place."""

    _under = ()

    def __init__(self, backend, listener="", server="", rest="", bind="127.0.0.1", under=()):
        self._under = under
        self._serve(
            f'[server]\n{server}\n[[listener]]\nname = "front"\nbind = ["{bind}:0"]\n{listener}\n'
            f'[upstream.backend]\nservers = ["127.0.0.1:{backend}"]\n{rest}\n'
        )

    def _serve(self, text):
        self._folder = tempfile.TemporaryDirectory(prefix="wsguard-clients-")
        self.file = pathlib.Path(self._folder.name) / "wsguard.toml"
        self.file.write_text(f'{text}[admin]\nlisten = "127.0.0.1:0"\n')
        super().__init__(*self._under, os.environ["WSGUARD"], "run", "-c", self.file)
        try:
            self.find(lambda line: event(line, "ready"), "ready")
            self.port = int(self.find(lambda line: event(line, "listening"), "listening")["address"].rsplit(":", 1)[1])
            self.admin = self.find(lambda line: event(line, "admin"), "admin")["address"]
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_):
        super().__exit__()
        self._folder.cleanup()

    def metric(self, series):
        """The value of one series, named as /metrics names it, labels and all. Who expects 0 of a misspelt one is not to be
        right, so one that is not there is a failure."""
        with contextlib.closing(http.client.HTTPConnection(self.admin, timeout=10)) as connection:
            connection.request("GET", "/metrics")
            text = connection.getresponse().read().decode()
        for line in text.splitlines():
            if line.startswith(series + " "):
                return float(line[len(series) + 1 :])
        raise AssertionError(f"no series is called {series}")

    def settle(self):
        """Fails unless, within five seconds, nothing is counted any more, and every count agrees with what is alive."""
        until("no connection is counted", lambda: self.metric("wsguard_process_connections") == 0)
        until("no socket is pending", lambda: self.metric('wsguard_pending{listener="front"}') == 0)
        for series in ("wsguard_counter_drift", "wsguard_panics_total"):
            assert self.metric(series) == 0, f"{series} is {self.metric(series)}"


class Example(Guard):
    """wsguard with a file of conf/examples, but for the addresses, before the server on port `backend`."""

    def __init__(self, name, backend):
        text = (HERE.parents[1] / "conf" / "examples" / f"{name}.toml").read_text()
        for line, ours in ((r"bind = .*", 'bind = ["127.0.0.1:0"]'), (r"servers = .*", f'servers = ["127.0.0.1:{backend}"]')):
            text, count = re.subn(f"^{line}$", ours, text, flags=re.MULTILINE)
            assert count == 1, f"{name} has {line} {count} times"
        self._serve(text)


class Backend(Program):
    """backend.py as a process of its own: answers 101, then echoes frame by frame."""

    def __init__(self):
        super().__init__(sys.executable, HERE / "backend.py")
        self.port = int(self.find(lambda line: line.startswith("port ") and line[5:], "its port"))


def event(line, name):
    with contextlib.suppress(ValueError):
        said = json.loads(line)
        return said if isinstance(said, dict) and said.get("event") == name else None


def is_traced(pid):
    """Whether another program traces every thread of the process."""
    return all(
        "TracerPid:\t0\n" not in (pathlib.Path("/proc") / str(pid) / "task" / thread / "status").read_text()
        for thread in os.listdir(f"/proc/{pid}/task")
    )


def until(what, look, seconds=5):
    end = time.monotonic() + seconds
    while not look():
        if time.monotonic() > end:
            raise AssertionError(f"waited {seconds} s in vain: {what}")
        time.sleep(0.02)


def sockets_for(count):
    """Raises this process's descriptor limit, and fails where it does not reach `count` sockets."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard < count + 100:
        raise AssertionError(f"{count} sockets need a descriptor limit of {count + 100}; the hard limit here is {hard}")


def connect(port, source="127.0.0.1"):
    """A socket from an address of this machine's own to the guard, on the loopback address of its family."""
    sock = socket.socket(socket.AF_INET6 if ":" in source else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.settimeout(10)
        sock.bind((source, 0))
        sock.connect(("::1" if ":" in source else "127.0.0.1", port))
    except BaseException:
        sock.close()
        raise
    return sock


def upgrade(port, source="127.0.0.1", before=b"", request=REQUEST):
    """An open WebSocket connection; `before` is sent before its request (a PROXY header)."""
    sock = connect(port, source)
    sock.sendall(before + request)
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        more = sock.recv(4096)
        if not more:
            break
        answer += more
    if not answer.startswith(b"HTTP/1.1 101 "):
        sock.close()
        raise AssertionError(f"no 101 for {source}: {answer!r}")
    return sock


def reset(sock):
    """Closes without leaving a port in TIME_WAIT."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def proxy_v2(source, port=40000):
    """A PROXY v2 header (haproxy's proxy-protocol.txt, 2.2) saying that `source` connects."""
    family = socket.AF_INET6 if ":" in source else socket.AF_INET
    there = "2001:db8:ffff::1" if family == socket.AF_INET6 else "192.0.2.1"
    addresses = socket.inet_pton(family, source) + socket.inet_pton(family, there) + struct.pack("!HH", port, 443)
    kind = 0x21 if family == socket.AF_INET6 else 0x11
    return b"\r\n\r\n\x00\r\nQUIT\n" + struct.pack("!BBH", 0x21, kind, len(addresses)) + addresses


def frame(payload):
    """A text frame of a client. Its mask is zero, so that the payload can be read in a trace."""
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", 0x81, 0x80 | size)
    elif size < 65536:
        head = struct.pack("!BBH", 0x81, 0x80 | 126, size)
    else:
        head = struct.pack("!BBQ", 0x81, 0x80 | 127, size)
    return head + bytes(4) + payload


def echo(sock, payload):
    """Sends one message, and waits for its echo."""
    sock.sendall(frame(payload))
    size = len(payload) + (2 if len(payload) < 126 else 4 if len(payload) < 65536 else 10)
    got = bytearray()
    while len(got) < size:
        more = sock.recv(size - len(got))
        if not more:
            raise AssertionError(f"ended after {len(got)} of {size} bytes of an echo")
        got += more
    assert got.endswith(payload), "the echo differs"
