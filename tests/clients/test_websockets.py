"""Python's `websockets`, client and server, once directly and once through the guard: what holds without the guard
holds with it."""

import asyncio
import contextlib
import os
import unittest

import websockets
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve

from rig import Guard

MIB = 1024 * 1024


def choose(_server, offered):
    return "chat.v2" if "chat.v2" in offered else None


class Directly(unittest.IsolatedAsyncioTestCase):
    guarded = False

    async def asyncSetUp(self):
        # Starting a guard blocks the loop for a moment; that is nothing to warn of.
        asyncio.get_running_loop().slow_callback_duration = 5
        self.seen = asyncio.Queue()
        self.exits = contextlib.AsyncExitStack()
        server = await self.exits.enter_async_context(
            serve(self.serve_one, "127.0.0.1", 0, max_size=4 * MIB, select_subprotocol=choose)
        )
        port = server.sockets[0].getsockname()[1]
        self.guard = None
        if self.guarded:
            self.guard = self.exits.enter_context(Guard(port))
            port = self.guard.port
        self.url = f"ws://127.0.0.1:{port}"

    async def asyncTearDown(self):
        try:
            if self.guard:
                await asyncio.to_thread(self.guard.settle)
        finally:
            await self.exits.aclose()

    async def serve_one(self, behind):
        """Echoes; `close CODE REASON` closes instead."""
        await self.seen.put(behind)
        with contextlib.suppress(websockets.ConnectionClosed):
            async for message in behind:
                if isinstance(message, str) and message.startswith("close "):
                    _, code, reason = message.split(" ", 2)
                    await behind.close(int(code), reason)
                else:
                    await behind.send(message)

    def open(self, **options):
        return connect(self.url, max_size=4 * MIB, **options)

    async def test_echoes_text_and_binary_up_to_1_mib(self):
        async with self.open() as client:
            for message in ("hello", "", "größer: 🙂", "x" * MIB, b"", os.urandom(70_000), os.urandom(MIB)):
                await client.send(message)
                self.assertEqual(await asyncio.wait_for(client.recv(), 10), message)

    async def test_a_message_in_fragments_arrives_whole(self):
        async with self.open() as client:
            await client.send(["one ", "message ", "in ", "five ", "parts"])
            self.assertEqual(await asyncio.wait_for(client.recv(), 10), "one message in five parts")

    async def test_permessage_deflate_is_negotiated_end_to_end(self):
        async with self.open(compression="deflate") as client:
            self.assertIn("permessage-deflate", client.response.headers["Sec-WebSocket-Extensions"])
            message = "compress me " * 90_000
            await client.send(message)
            self.assertEqual(await asyncio.wait_for(client.recv(), 10), message)
        async with self.open(compression=None) as client:
            self.assertNotIn("Sec-WebSocket-Extensions", client.response.headers)

    async def test_pings_are_answered_both_ways(self):
        async with self.open() as client:
            behind = await self.seen.get()
            for end in (client, behind):
                answered = await end.ping(b"are you there?")
                self.assertGreater(await asyncio.wait_for(answered, 5), 0)

    async def test_close_codes_arrive_unchanged_both_ways(self):
        for code, reason in ((1000, "done"), (4001, "signed in elsewhere")):
            async with self.open() as client:
                behind = await self.seen.get()
                await client.close(code, reason)
                await asyncio.wait_for(behind.wait_closed(), 5)
                self.assertEqual((behind.close_code, behind.close_reason), (code, reason))
            async with self.open() as client:
                await client.send(f"close {code} {reason}")
                await asyncio.wait_for(client.wait_closed(), 5)
                self.assertEqual((client.close_code, client.close_reason), (code, reason))
                await self.seen.get()

    async def test_the_server_chooses_the_subprotocol(self):
        async with self.open(subprotocols=["chat.v1", "chat.v2"]) as client:
            behind = await self.seen.get()
            self.assertEqual((client.subprotocol, behind.subprotocol), ("chat.v2", "chat.v2"))


class ThroughTheGuard(Directly):
    guarded = True


class Refused(unittest.IsolatedAsyncioTestCase):
    async def test_a_refused_client_hears_429_and_its_library_retries(self):
        async def serve_one(behind):
            await behind.wait_closed()

        async with serve(serve_one, "127.0.0.1", 0) as server:
            with Guard(server.sockets[0].getsockname()[1], rest="[limits]\nper_ip = 1") as guard:
                url = f"ws://127.0.0.1:{guard.port}"
                async with connect(url):
                    with self.assertRaises(websockets.InvalidStatus) as refused:
                        await connect(url)
                    response = refused.exception.response
                    self.assertEqual(response.status_code, 429)
                    self.assertEqual(response.headers["X-Wsguard-Reason"], "per_ip")
                    self.assertEqual(response.body, b"Too many connections from this IP\r\n")
                await asyncio.to_thread(guard.settle)
                async with connect(url):
                    pass
                await asyncio.to_thread(guard.settle)


if __name__ == "__main__":
    unittest.main(verbosity=2)
