"""The end of chains: `leaf.py PORT` answers anything, after up to 8 ms."""
import asyncio
import random
import sys

from aiohttp import web


async def answer(_):
    await asyncio.sleep(random.random() * 0.008)
    return web.Response(text="leaf")


app = web.Application()
app.router.add_get("/{path:.*}", answer)
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None)
