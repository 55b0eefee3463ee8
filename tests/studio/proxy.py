"""A proxy that serves another server below a path, as nginx does: the path is taken off, nothing is buffered."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

ROOT = Path(__file__).parents[2]
DROPPED = {"content-length", "transfer-encoding", "content-encoding", "connection", "host"}
READY = "ready"


@contextmanager
def proxied(server: str, path: str, port: int) -> Iterator[str]:
    """Returns the address below whose path a server is served, by a process of its own."""
    command = [sys.executable, "-m", "tests.studio.proxy", server, path, str(port)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == READY
        try:
            yield f"http://127.0.0.1:{port}{path}/"
        finally:
            process.terminate()


def application(server: str, path: str) -> Starlette:
    """Returns the proxy."""
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

    routes = [Route(f"{path}/{{rest:path}}", forward, methods=["GET", "POST", "HEAD"])]
    return Starlette(routes=routes)


if __name__ == "__main__":
    below = application(*sys.argv[1:3])
    serving = uvicorn.Server(uvicorn.Config(below, port=int(sys.argv[3]), log_level="error"))
    serving.config.load()
    print(READY, flush=True)
    serving.run()
