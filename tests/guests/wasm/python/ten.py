"""A script, for `script`: ten naps of a tenth of a second, all at once."""

import asyncio
import sys
import time


async def nap(number):
    await asyncio.sleep(0.1)
    return number


async def main():
    start = time.monotonic()
    numbers = await asyncio.gather(*map(nap, range(10)))
    taken = time.monotonic() - start
    print(f"Python {sys.version.split()[0]}: naps {numbers}, all in {taken:.1f} s")


asyncio.run(main())
