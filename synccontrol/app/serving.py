"""Serving the page: Gradio's server, with the guard before it."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from synccontrol.app.guard import Guard
from synccontrol.app.options import USER, Options
from synccontrol.app.studio import Studio
from synccontrol.app.visitor import Visitors
from synccontrol.command.parser import RAY
from synccontrol.errors import OutputError
from synccontrol.jobs import runtime
from synccontrol.jobs.runtime import Request
from synccontrol.models import hub

ASSETS = Path(__file__).parent / "assets"
FONTS = ("system-ui", "sans-serif")
MONO = ("ui-monospace", "monospace")


@contextlib.contextmanager
def served(options: Options) -> Iterator[str]:
    """Serves the page while the context lasts, and returns its address.

    Raises:
        OutputError: the port is taken.
        ModelError: a model on offer, or the device, is not to be had.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # nothing is told to anybody
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    for model in options.models:
        request = Request(model=model, controls=(), controlnets=(), detectors=(), **options.machine)
        runtime.machine_of(request)
        hub.geometry(model, request.offline)
    visitors = Visitors(options.limits)
    os.environ.setdefault("GRADIO_TEMP_DIR", str(Path(visitors.root) / "gradio"))
    from starlette.middleware import Middleware

    from synccontrol.app import page
    from synccontrol.app.handing import Handing
    from synccontrol.app.looking import Looking
    from synccontrol.app.making import Making
    from synccontrol.app.parts import HEAD

    hands = []
    if options.engine == RAY:
        from synccontrol.app import ray_hand

        hands = ray_hand.hands(options.workers, options.address, options.machine["device"])
    studio = Studio(options.machine, options.limits, hands)
    looking = Looking(studio, visitors, options.models, options.extras)
    making = Making(looking)
    demo = page.build(page.Handlers(looking, Handing(looking), making))
    guard = Middleware(Guard, visitors=visitors, limits=options.limits)
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
        making.warm()
        yield shared or local
    except OSError as error:
        raise OutputError(f"port {options.port} is taken; name another with --port ({error})") from error
    finally:
        demo.close(verbose=False)
        studio.close()
        visitors.close()


def _theme() -> Any:
    """Returns how the page looks: fonts of the machine it is seen on, and colours with enough contrast to be read."""
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
