"""The page of a live session: gradio serves it and its one component. It sends nothing elsewhere and fetches nothing."""

from __future__ import annotations

import os
import tempfile

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before gradio is imported, since its default is to report use
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import gradio

from eval.pages import source
from jobs.live.desk import answers, session
from jobs.live.door import Door
from jobs.live.player import Player
from jobs.live.session import LiveOrder

TEMPORARY = "GRADIO_TEMP_DIR"
FONTS, MONO = ["system-ui", "sans-serif"], ["ui-monospace", "monospace"]
"""Fonts of the system, because gradio's default ones come from the network."""


def page(player: Player, asked: LiveOrder, written: set[Path]) -> gradio.Blocks:
    """The page, not yet served. written: files that the session saves are added to it."""
    with gradio.Blocks(title="Live session", analytics_enabled=False, fill_width=True) as blocks:
        gradio.HTML(
            html_template=str(source("live.html")), js_on_load=str(source("live.js")), apply_default_css=False, elem_id="live",
            server_functions=answers(player, asked, written),
        )  # fmt: skip
    return blocks


@contextmanager
def serve(asked: LiveOrder) -> Iterator[str]:
    """Serve the page and run the session; yields the address. Raises OSError if the port is in use."""
    written = set[Path]()
    player = Player(partial(session, asked), asked.first)
    blocks = page(player, asked, written)
    outer, temporary = os.environ.get(TEMPORARY), tempfile.TemporaryDirectory(prefix="echo-live-")  # removed with gradio's files in it
    os.environ[TEMPORARY] = temporary.name
    try:
        _, url, _ = blocks.launch(
            server_name=asked.host, server_port=asked.port, prevent_thread_lock=True, quiet=True, share=False, inbrowser=False,
            ssr_mode=False, pwa=False, mcp_server=False, footer_links=[], run_history=False, show_error=True, enable_monitoring=False,
            app_kwargs={"middleware": [(Door, (asked.host, written), {})]}, allowed_paths=[str(asked.save.resolve())],
            theme=gradio.themes.Base(font=FONTS, font_mono=MONO),
            head=f"<style>{source('common.css')}{source('live.css')}</style>",  # passed as css=, gradio would split shorthands
        )  # fmt: skip
        yield url
    finally:
        player.close()
        blocks.close(verbose=False)
        temporary.cleanup()
        os.environ.pop(TEMPORARY)
        os.environ.update({} if outer is None else {TEMPORARY: outer})
