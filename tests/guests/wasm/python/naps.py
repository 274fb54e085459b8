"""Ten sleeps of a tenth of a second, at once."""

import asyncio
import time

from wit_world import exports


async def nap(number):
    await asyncio.sleep(0.1)
    return number


async def naps():
    start = time.monotonic()
    print(await asyncio.gather(*map(nap, range(10))))
    print(f"{time.monotonic() - start:.1f} s")


class Run(exports.Run):
    def run(self):
        asyncio.run(naps())
