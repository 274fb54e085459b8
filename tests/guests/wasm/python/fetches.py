"""Fetches a page of a server at 127.0.0.1 ten times at once. The argument is the port."""

import asyncio
import sys

from wit_world import exports


async def fetch(port, number):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET /{number} HTTP/1.0\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    return answer.decode().rpartition("\r\n\r\n")[2]


async def fetches(port):
    print(*await asyncio.gather(*(fetch(port, number) for number in range(10))))


class Run(exports.Run):
    def run(self):
        asyncio.run(fetches(int(sys.argv[1])))
