"""150 tunnels that pour the smallest frames there are, as fast as they are taken: an honest client's echo beside them takes no
longer at its 95th percentile than beside the same tunnels through nginx, whatever limit judges their frames.

Windows of nginx and of the guard alternate, and each pair is compared with itself, since what else the machine does changes
from one to the next; the median of all pairs is judged. Their number is fixed."""

import asyncio
import pathlib
import select
import socket
import statistics
import struct
import sys
import tempfile
import time
import unittest

from rig import REQUEST, SWITCHED, Backend, Guard, Program, echo, reset, sockets_for, until, upgrade

POURING = 150
ROUNDS = 7
# Of each window, in seconds.
WINDOW = 1.5
POUR = REQUEST.replace(b"/chat", b"/pour")
# Empty binary frames of a client.
FRAMES = b"\x82\x80\0\0\0\0" * 40_000
ROUTES = '[[route]]\npaths = ["/pour"]\nupstream = "sink"\n[[route]]\nupstream = "backend"\n'
OPEN = '[limits]\nper_ip = "off"\nper_ip_rate = "off"\n'
LIMITS = {
    "no limit": "strict_frames = false\n",
    "a rate that nobody reaches": 'rate = "1000000/s"\nburst = 1000000\n',
    "a rate of the address that nobody reaches": 'per_ip_rate = "1000000/s"\nper_ip_burst = 1000000\nmode = "observe"\n',
    "ping": 'ping = "30s"\n',
}


class Fairness(unittest.TestCase):
    def setUp(self):
        sockets_for(2 * POURING)

    def test_who_pours_tiny_frames_is_felt_no_more_than_through_nginx(self):
        with Backend() as backend, Sink() as sink, Nginx(backend.port, sink.port) as nginx:
            for what, limits in LIMITS.items():
                with self.subTest(what), guard_with(limits, backend, sink) as guard:
                    self.compare(what, nginx.port, guard.port)

    def compare(self, what, nginx, guard):
        pairs = []
        for _ in range(ROUNDS):
            pairs.append((window(nginx), window(guard)))
        ratios = [ours / theirs for theirs, ours in pairs]
        theirs, ours = (statistics.median(column) * 1000 for column in zip(*pairs))
        ratio = statistics.median(ratios)
        print(f"\n{what}: p95 {ours:.2f} ms, through nginx {theirs:.2f} ms; {ratio:.2f} times, of {min(ratios):.2f} to {max(ratios):.2f}")
        self.assertLessEqual(ratio, 1, f"{what}: times nginx's p95")


def guard_with(limits, backend, sink):
    limits, observe = limits.replace('mode = "observe"\n', ""), 'mode = "observe"' in limits
    text = OPEN + ('mode = "observe"\n' if observe else "") + f"[limits.messages]\n{limits}" + ROUTES
    text += f'[upstream.sink]\nservers = ["127.0.0.1:{sink.port}"]\n'
    return Guard(backend.port, server="workers = 1", rest=text)


def window(port):
    """The 95th percentile of an echo while others pour, in seconds."""
    sock = upgrade(port)
    try:
        with Program(sys.executable, __file__, "pour", port) as pours:
            pours.find(lambda line: line == "pouring", "the flood", 20)
            time.sleep(0.3)
            times, end = [], time.monotonic() + WINDOW
            while time.monotonic() < end or len(times) < 20:
                start = time.perf_counter()
                echo(sock, b"are you there?")
                times.append(time.perf_counter() - start)
            assert pours.process.poll() is None, "the flood was ended"
    finally:
        reset(sock)
    return sorted(times)[len(times) * 95 // 100]


class Sink(Program):
    """A server that takes whatever comes as fast as it can."""

    def __init__(self):
        super().__init__(sys.executable, __file__, "sink")
        self.port = int(self.find(lambda line: line.startswith("port ") and line[5:], "its port"))


class Nginx(Program):
    """nginx with one worker, on a port of its own."""

    def __init__(self, backend, sink):
        self._folder = tempfile.TemporaryDirectory(prefix="wsguard-nginx-")
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        file = pathlib.Path(self._folder.name) / "nginx.conf"
        upgrade_on = (
            "proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection Upgrade; "
            "proxy_set_header Host $host;"
        )
        file.write_text(
            "worker_processes 1; daemon off; pid nginx.pid; error_log stderr;\n"
            "events { worker_connections 1024; }\n"
            "http { access_log off; client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;\n"
            "uwsgi_temp_path uwsgi; scgi_temp_path scgi;\n"
            f"server {{ listen 127.0.0.1:{self.port};\n"
            f"location /pour {{ proxy_pass http://127.0.0.1:{sink}; {upgrade_on} }}\n"
            f"location / {{ proxy_pass http://127.0.0.1:{backend}; {upgrade_on} }} }} }}\n"
        )
        super().__init__("nginx", "-e", "stderr", "-p", self._folder.name, "-c", file)
        until("nginx listens", self.listens)

    def listens(self):
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", self.port)) == 0

    def __exit__(self, *_):
        # Its worker ends with it.
        self.process.terminate()
        self.process.wait()
        super().__exit__()
        self._folder.cleanup()


class Discard(asyncio.BufferedProtocol):
    room = bytearray(256 * 1024)

    def connection_made(self, transport):
        self.transport, self.head = transport, b""

    def get_buffer(self, _):
        return self.room

    def buffer_updated(self, size):
        if self.head is None:
            return
        self.head += self.room[:size]
        if b"\r\n\r\n" in self.head:
            self.head = None
            self.transport.write(SWITCHED)


async def sink():
    server = await asyncio.get_running_loop().create_server(Discard, "127.0.0.1", 0, backlog=1024)
    print("port", server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def pour(port):
    sent, poll = {}, select.epoll()
    for _ in range(POURING):
        sock = upgrade(port, request=POUR)
        sock.setblocking(False)
        # It ends with a reset, so that nothing of this window is left to be passed on in the next.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sent[sock.fileno()] = (sock, 0)
        poll.register(sock, select.EPOLLOUT)
    print("pouring", flush=True)
    frames = memoryview(FRAMES)
    while True:
        for fd, _ in poll.poll():
            sock, at = sent[fd]
            sent[fd] = (sock, (at + sock.send(frames[at:])) % len(frames))


if __name__ == "__main__":
    if sys.argv[1:2] == ["sink"]:
        asyncio.run(sink())
    elif sys.argv[1:2] == ["pour"]:
        pour(int(sys.argv[2]))
    else:
        unittest.main(verbosity=2)
