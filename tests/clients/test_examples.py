"""The times that the files of conf/examples name, waited for in full: all at once, so it takes two minutes. A day, the longest
life in e-exhaustion.toml, is not waited for; tests/promises/timeouts.rs ends connections after shorter ones."""

import concurrent.futures
import socket
import time
import unittest

from rig import REQUEST, Backend, Example, connect, echo, proxy_v2, upgrade

PING, CLOSE = 0x89, 0x88
# The sweep looks four times a second, and machines are slow.
EARLY, LATE = 0.3, 3


class Times(unittest.TestCase):
    def test_each_is_kept(self):
        waits = [
            self.chat_pings_after_30_seconds_and_ends_who_does_not_answer_10_seconds_later,
            self.behind_nginx_it_pings_after_30_seconds_and_ends_who_does_not_answer_10_seconds_later,
            self.so_it_does_behind_haproxy,
            self.the_course_pings_after_25_seconds,
            self.mastodon_pings_after_60_seconds,
            self.exhaustion_asks_a_newcomer_after_10_seconds_and_ends_it_after_20,
            self.exhaustion_ends_who_has_spoken_after_two_silent_minutes,
            self.exhaustion_gives_a_server_5_seconds_to_answer,
        ]
        with Backend() as self.backend, concurrent.futures.ThreadPoolExecutor(len(waits)) as pool:
            for wait, waiting in [(wait, pool.submit(wait)) for wait in waits]:
                with self.subTest(wait.__name__):
                    waiting.result()

    def chat_pings_after_30_seconds_and_ends_who_does_not_answer_10_seconds_later(self):
        with Example("a-chat", self.backend.port) as guard, Client(guard) as client:
            self.hears(client, 30, PING)
            self.hears(client, 10, CLOSE, 1001)

    def behind_nginx_it_pings_after_30_seconds_and_ends_who_does_not_answer_10_seconds_later(self):
        with Example("behind-nginx", self.backend.port) as guard, Client(guard) as client:
            self.hears(client, 30, PING)
            self.hears(client, 10, CLOSE, 1001)

    def so_it_does_behind_haproxy(self):
        with Example("behind-haproxy", self.backend.port) as guard, Client(guard, proxy_v2("203.0.113.1")) as client:
            self.hears(client, 30, PING)
            self.hears(client, 10, CLOSE, 1001)

    def the_course_pings_after_25_seconds(self):
        with Example("b-course", self.backend.port) as guard, Client(guard) as client:
            self.hears(client, 25, PING)

    def mastodon_pings_after_60_seconds(self):
        with Example("mastodon-streaming", self.backend.port) as guard, Client(guard) as client:
            self.hears(client, 60, PING)

    def exhaustion_asks_a_newcomer_after_10_seconds_and_ends_it_after_20(self):
        with Example("e-exhaustion", self.backend.port) as guard, Client(guard) as client:
            self.hears(client, 10, PING)
            self.hears(client, 10, CLOSE, 1008)

    def exhaustion_ends_who_has_spoken_after_two_silent_minutes(self):
        with Example("e-exhaustion", self.backend.port) as guard, Client(guard) as client:
            client.speaks(b"here I am")
            self.hears(client, 120, CLOSE, 1001)

    def exhaustion_gives_a_server_5_seconds_to_answer(self):
        with socket.create_server(("127.0.0.1", 0)) as mute, Example("e-exhaustion", mute.getsockname()[1]) as guard:
            with connect(guard.port) as client:
                start = time.monotonic()
                client.sendall(REQUEST)
                self.assertTrue(client.recv(4096).startswith(b"HTTP/1.1 504 "))
                took = time.monotonic() - start
                self.assertTrue(5 - EARLY <= took <= 5 + LATE, f"{took:.1f} s for 5 s")

    def hears(self, client, seconds, kind, code=None):
        """Fails unless the next that the client hears comes so late, and is such a frame."""
        client.due += seconds - EARLY
        client.sock.settimeout(seconds + LATE)
        head = client.sock.recv(2)
        now = time.monotonic()
        self.assertGreaterEqual(now - client.earliest, client.due, "seconds since it came or spoke")
        self.assertLessEqual(now - client.latest, seconds + LATE, "seconds since the last that it heard")
        client.latest = now
        payload = client.sock.recv(head[1])
        self.assertEqual(head[0], kind, payload)
        if code is not None:
            self.assertEqual(int.from_bytes(payload[:2], "big"), code)


class Client:
    """An open connection, and when the guard's clock for it began to run: between two instants of this process, which may
    be paused there. All that is due from then on is held against the earlier one."""

    def __init__(self, guard, before=b""):
        self.sock = None
        self._begin(lambda: upgrade(guard.port, before=before))

    def speaks(self, words):
        self._begin(lambda: echo(self.sock, words))

    def _begin(self, does):
        self.due, self.earliest = 0, time.monotonic()
        self.sock = does() or self.sock
        self.latest = time.monotonic()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()


if __name__ == "__main__":
    unittest.main(verbosity=2)
