"""`d3mlx serve`: an HTTP server with OpenAI's API."""

from __future__ import annotations

import ipaddress
import re
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from d3mlx.batch import MAX_BATCH, MOST_AT_ONCE
from d3mlx.cli import common
from d3mlx.cli.decoder_flags import takes_decoder_options
from d3mlx.cli.session import ModelFlags, check_settings, start
from d3mlx.errors import ConfigError
from d3mlx.server.fields import Defaults
from d3mlx.server.worker import Worker

SERVER = "Server"

INSTALL = "The server needs more libraries. Install them with: pip install 'd3mlx[serve]'"


def is_loopback(host: str) -> bool:
    """Return whether only programs on this machine can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def checked_host(host: str) -> str:
    """Return a host without the brackets of an IPv6 address. Raises ConfigError if it is empty."""
    if not host.strip("[] "):
        raise ConfigError("--host must not be empty. Use 127.0.0.1 for this machine, or 0.0.0.0 for all networks.")
    return host.removeprefix("[").removesuffix("]")


def check_key(key: str | None) -> None:
    """Raise ConfigError if no client could send a key, or if it is empty by mistake."""
    if key is not None and not (key.isascii() and key.isprintable() and key and " " not in key):
        raise ConfigError("The API key must have ASCII letters, digits or signs, and no spaces. Set another --api-key.")


def checked_origin(origin: str) -> str:
    """Return an origin as browsers write it. Raises ConfigError."""
    if not re.fullmatch(r"https?://[\w.-]+(:\d+)?/?|https?://\[[\da-fA-F:]+\](:\d+)?/?", origin):
        raise ConfigError(f"{origin!r} is not an origin. Use a form such as https://example.com or http://host:8080.")
    return origin.removesuffix("/")


@takes_decoder_options()
def serve(
    model: common.Model = None,
    adapter_path: common.AdapterPath = None,
    revision: common.Revision = None,
    host: Annotated[str, typer.Option(help="Address to listen on.", rich_help_panel=SERVER)] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(help="Port to listen on. 0 takes a free one.", min=0, max=65535, rich_help_panel=SERVER)
    ] = 8080,
    api_key: Annotated[
        str | None,
        typer.Option(
            envvar="D3MLX_API_KEY", help="Key that clients must send.", show_default=False, rich_help_panel=SERVER
        ),
    ] = None,
    allowed_origins: Annotated[
        list[str] | None,
        typer.Option(
            help="Allow pages of this origin to use the server. You can repeat this option.", rich_help_panel=SERVER
        ),
    ] = None,
    max_batch: Annotated[
        int,
        typer.Option(
            help="Maximum number of requests in one forward.", min=1, max=MOST_AT_ONCE, rich_help_panel=SERVER
        ),
    ] = MAX_BATCH,
    max_waiting: Annotated[
        int,
        typer.Option(
            help="Maximum number of requests that wait. Others get status 503.",
            min=1,
            max=100_000,
            rich_help_panel=SERVER,
        ),
    ] = 64,
    max_tokens: common.MaxTokens = None,
    decoder: common.DecoderName = None,
    *,
    options: dict[str, Any],
    recommended: common.UseRecommended = False,
    temperature: common.Temperature = None,
    top_p: common.TopP = None,
    top_k: common.TopK = None,
    end_penalty: common.EndPenalty = None,
    seed: common.Seed = 0,
) -> None:
    """Serve a model to clients of OpenAI's API.

    Many requests share each forward. The settings below are defaults; a request can have its own.

    Example: d3mlx serve --model GSAI-ML/LLaDA-8B-Instruct --port 8080
    """
    settings = common.DecodeSettings(decoder, temperature, top_p, end_penalty, max_tokens, options, top_k, seed)
    check_settings(settings)
    try:
        server = import_module("d3mlx.server.run")
        app = import_module("d3mlx.server.app")
    except ImportError as error:
        raise ConfigError(INSTALL) from error
    check_key(api_key)
    origins = tuple(map(checked_origin, allowed_origins or ()))
    address = server.listen(checked_host(host), port)
    session = start(ModelFlags(model, adapter_path, revision), settings, recommended)
    if not is_loopback(host) and api_key is None:
        common.notice(
            "Every machine that can reach this one can use the server. Set --api-key, or listen on 127.0.0.1."
        )
    defaults = Defaults(
        session.settings.decoder or "", session.settings.options, session.sampling, session.settings.max_tokens
    )
    name = session.flags.name if model is not None else Path(session.flags.name).name
    shown, number = address.getsockname()[:2]
    place = f"[{shown}]" if ":" in shown else shown
    common.notice(f"Serving {name} on http://{place}:{number}. Press Ctrl-C to end.")
    worker = Worker(session.model, session.tokenizer, max_batch=max_batch, max_waiting=max_waiting)
    server.serve(
        worker, app.Settings(name, defaults, api_key, origins, common.NOTICE if model is None else ""), address
    )
