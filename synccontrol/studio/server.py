"""The web server of the page, and `Guard`, which limits what of it can be reached.

Images arrive within messages and have addresses of their own. So Gradio's routes for uploads, `file=`, proxies and the
like are not needed, and closed.
"""

import contextlib
import mimetypes
import os
import re
import secrets
from collections.abc import Iterator
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from synccontrol.batch import model_request
from synccontrol.batch.model_request import ModelRequest
from synccontrol.errors import OutputError
from synccontrol.models import loader
from synccontrol.spec.image_settings import RAY
from synccontrol.studio.options import USER, Options
from synccontrol.studio.queue import MEGA, Limits
from synccontrol.studio.session import Sessions
from synccontrol.studio.studio import Studio

ASSETS = Path(__file__).parent / "assets"
COOKIE = "synccontrol"
COOKIE_BYTES = 24
ENVELOPE = 1.5  # size of a message over that of its file: base64, and the rest of the message
OWN = "/synccontrol/"
CLOSED = "not found"
OPEN = re.compile(  # Gradio's routes of the page, its assets, the login and its queue
    r"/|/config/?|/theme\.css|/robots\.txt|/favicon\.ico|/manifest\.json|/static/[\w./-]+|/assets/[\w./-]+|/svelte/[\w./-]+"
    r"|/login/?|/logout|/user/?|/token|/gradio_api/(config|info|app_id|startup-events|theme\.css|login|token|user|cancel|reset"
    r"|login_check|heartbeat/\w+|queue/(join|data|status)|call/\w+(/\w+)?|call/v2/\w+)/?"
)
POLICY = (  # no other server is used; Gradio needs unsafe-eval
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; worker-src 'self' blob:; "
    "object-src 'none'; base-uri 'self'; frame-ancestors 'self'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
}


class TooLarge(Exception):
    """A message has too many bytes."""


class Guard:
    """Middleware in front of Gradio's server.

    Args:
        app: the server.
        sessions: whose images are served.
        limits: of uploads.
    """

    def __init__(self, app: ASGIApp, sessions: Sessions, limits: Limits) -> None:
        self._app, self._sessions = app, sessions
        self._most = round(limits.upload * MEGA * ENVELOPE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        request = Request(scope)
        key = key_of(request.headers.get("cookie", ""))
        new = "" if key else secrets.token_urlsafe(COOKIE_BYTES)
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        answer = _Answer(send, new if path == "/" else "", request.url.scheme == "https")
        own = self._own(path, key)
        if own is not None:
            await own(scope, receive, answer)
            return
        if int(request.headers.get("content-length", "0") or 0) > self._most:
            await self._refuse(scope, receive, answer)
            return
        try:
            await self._app(scope, _Counted(receive, self._most), answer)
        except TooLarge:
            if not answer.begun:
                await self._refuse(scope, receive, answer)

    def _own(self, path: str, key: str) -> Response | None:
        """Return the response to a path of ours or a closed one; None: Gradio answers."""
        kind, _, name = path.removeprefix(OWN).partition("/") if path.startswith(OWN) else ("", "", "")
        if kind == "assets":
            file = {asset.name: asset for asset in ASSETS.iterdir() if asset.is_file()}.get(name)
            if file is not None:
                media = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
                return FileResponse(file, media_type=media, headers={"cache-control": "no-cache"})
        if kind == "pictures":
            image = self._sessions.image_file(name, key)
            if image is not None and image.is_file():
                return FileResponse(
                    image,
                    filename=image.name,
                    content_disposition_type="inline",
                    headers={"cache-control": "private"},
                )
        open_ = OPEN.fullmatch(path) and ".." not in path
        return None if open_ else PlainTextResponse(CLOSED, status_code=404)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        text = f"this is more than the {self._most / ENVELOPE / MEGA:.0f} MB that are taken; make it smaller"
        await PlainTextResponse(text, status_code=413)(scope, receive, send)


def key_of(cookies: str) -> str:
    """Return the key of a browser from its cookies; an empty text for a new one."""
    try:
        cookie = SimpleCookie(cookies).get(COOKIE)
    except CookieError:
        return ""
    return cookie.value if cookie is not None else ""


class _Counted:
    """Counts received bytes. Raises `TooLarge` beyond the limit."""

    def __init__(self, receive: Receive, most: int) -> None:
        self._receive, self._left = receive, most

    async def __call__(self) -> Message:
        message = await self._receive()
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            raise TooLarge
        return message


class _Answer:
    """Adds headers to a response."""

    def __init__(self, send: Send, key: str, secure: bool) -> None:
        self._send, self._key, self._secure = send, key, secure
        self.begun = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.begun = True
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
            if self._key:
                secure = "; Secure" if self._secure else ""
                headers.append("set-cookie", f"{COOKIE}={self._key}; Path=/; HttpOnly; SameSite=Lax{secure}")
        await self._send(message)


FONTS = ("system-ui", "sans-serif")
MONO = ("ui-monospace", "monospace")


@contextlib.contextmanager
def served(options: Options) -> Iterator[str]:
    """Serve the page within the context, and yield its address.

    Raises:
        OutputError: the port is taken.
        ModelError: a model or the device is not available.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    for model in options.models:
        request = ModelRequest(model=model, controls=(), controlnets=(), detectors=(), **options.machine)
        model_request.machine_of(request)
        loader.geometry(model, request.offline)
    sessions = Sessions(options.limits)
    os.environ.setdefault("GRADIO_TEMP_DIR", str(Path(sessions.root) / "gradio"))
    from starlette.middleware import Middleware

    from synccontrol.studio import page
    from synccontrol.studio.handlers import GenerationHandlers, PreviewHandlers, UploadHandlers
    from synccontrol.studio.page import HEAD

    executors = []
    if options.engine == RAY:
        from synccontrol.studio import backends

        executors = backends.remote(options.workers, options.address, options.machine["device"])
    studio = Studio(options.machine, options.limits, executors)
    previews = PreviewHandlers(studio, sessions, options.models, options.adapters)
    generation = GenerationHandlers(previews)
    demo = page.build(page.Handlers(previews, UploadHandlers(previews), generation))
    guard = Middleware(Guard, sessions=sessions, limits=options.limits)
    demo.queue(max_size=None, default_concurrency_limit=None, api_open=False)
    try:
        _, local, shared = demo.launch(
            server_name=options.host,
            server_port=options.port,
            share=options.share,
            auth=(USER, options.password) if options.password else None,
            root_path=options.root_path,
            inbrowser=options.open,
            max_file_size=1,
            quiet=True,
            prevent_thread_lock=True,
            show_error=False,
            enable_monitoring=False,
            run_history=False,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            footer_links=["api"],
            state_session_capacity=options.limits.visitors,
            app_kwargs={"middleware": [guard], "docs_url": None, "redoc_url": None, "openapi_url": None},
            theme=_theme(),
            css=(ASSETS / "page.css").read_text(encoding="utf-8"),
            head=HEAD,
        )
        generation.warm()
        yield shared or local
    except OSError as error:
        raise OutputError(f"port {options.port} is taken; name another with --port ({error})") from error
    finally:
        demo.close(verbose=False)
        studio.close()
        sessions.close()


def _theme() -> Any:
    """Return the theme: the browser's fonts, and colours with enough contrast."""
    import gradio as gr

    theme = gr.themes.Default(primary_hue="blue", font=list(FONTS), font_mono=list(MONO))
    return theme.set(
        block_info_text_color="#4b5563",
        block_info_text_color_dark="#b6bec9",
        body_text_color_subdued="#4b5563",
        body_text_color_subdued_dark="#b6bec9",
        input_placeholder_color="#4b5563",
        button_primary_background_fill="#1d4ed8",
        button_primary_background_fill_hover="#1e40af",
        button_primary_background_fill_dark="#1d4ed8",
        button_primary_background_fill_hover_dark="#1e40af",
        button_cancel_background_fill="#b42318",
        button_cancel_background_fill_hover="#8f1c13",
        button_cancel_background_fill_dark="#b42318",
        button_cancel_background_fill_hover_dark="#8f1c13",
    )
