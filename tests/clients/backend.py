"""The server behind the guard in the load checks: answers every request with 101 and echoes frames, thousands of them
at a time and cheaply. It expects clients that mask with zeros."""

import asyncio
import resource

from rig import SWITCHED


class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
        self.bytes = bytearray()
        self.open = False

    def data_received(self, data):
        self.bytes += data
        if not self.open:
            end = self.bytes.find(b"\r\n\r\n")
            if end < 0:
                return
            del self.bytes[: end + 4]
            self.open = True
            self.transport.write(SWITCHED)
        while (frame := self.next_frame()) is not None:
            self.transport.write(frame)

    def next_frame(self):
        """The first frame as a server sends it, once all of it is here."""
        got = self.bytes
        if len(got) < 2:
            return None
        size, at = got[1] & 0x7F, 2
        if size >= 126:
            at = 4 if size == 126 else 10
            if len(got) < at:
                return None
            size = int.from_bytes(got[2:at], "big")
        payload = at + 4
        if len(got) < payload + size:
            return None
        frame = bytes([got[0], got[1] & 0x7F]) + bytes(got[2:at]) + bytes(got[payload : payload + size])
        del got[: payload + size]
        return frame


async def main():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", 0, backlog=4096)
    print("port", server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


asyncio.run(main())
