"""A proxy that serves another server below a path, as nginx does: the path is taken off, nothing is buffered."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

DROPPED = {"content-length", "transfer-encoding", "content-encoding", "connection", "host"}


@contextmanager
def proxied(server: str, path: str, port: int) -> Iterator[str]:
    """Returns the address below whose path a server is served."""
    client = httpx.AsyncClient(base_url=server, timeout=None)

    async def forward(request: Request) -> StreamingResponse:
        headers = {name: value for name, value in request.headers.items() if name not in DROPPED}
        headers |= {"host": request.headers["host"], "accept-encoding": "identity", "x-forwarded-proto": "http"}
        url = request.url.path.removeprefix(path) + (f"?{request.url.query}" if request.url.query else "")
        sent = client.build_request(request.method, url, headers=headers, content=await request.body())
        answer = await client.send(sent, stream=True)

        async def body() -> AsyncIterator[bytes]:
            async for part in answer.aiter_raw():
                yield part
            await answer.aclose()

        kept = {name: value for name, value in answer.headers.items() if name not in DROPPED}
        return StreamingResponse(body(), answer.status_code, kept)

    app = Starlette(routes=[Route(f"{path}/{{rest:path}}", forward, methods=["GET", "POST", "HEAD"])])
    serving = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error"))
    thread = threading.Thread(target=serving.run, daemon=True)
    thread.start()
    while not serving.started:
        time.sleep(0.05)
    try:
        yield f"http://127.0.0.1:{port}{path}/"
    finally:
        serving.should_exit = serving.force_exit = True
        thread.join(10)
