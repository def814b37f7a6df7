"""`qwen-core serve`: a model behind OpenAI's API, for trying it."""

from __future__ import annotations

import ipaddress
import os
import secrets

import click

from qwen_core.cli.chat import model_folder_of
from qwen_core.cli.options import home_option, model_option, run_model_option


@click.command()
@model_option
@run_model_option
@click.option("--name", default="qwen-core", show_default=True, help="Under which clients ask for the model.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Beyond loopback an API key is asked for.")
@click.option("--port", default=8001, show_default=True, type=click.IntRange(1, 65535))
@click.option("--device", default=None, help="Such as cuda or cpu [default: a GPU where there is one].")
@home_option
def serve(
    named: str | None,
    run_key: str | None,
    name: str,
    host: str,
    port: int,
    device: str | None,
    home: str | None,
) -> None:
    """Serve a model behind OpenAI's API, one request at a time, for trying it.

    The API key is taken from QWEN_CORE_API_KEY; beyond loopback one is generated where it is not set.

    \b
    Examples:
      qwen-core serve
      qwen-core serve --run-key demo-20260102-030405-9f3a --port 9000
      curl localhost:8001/v1/chat/completions -H 'content-type: application/json' \\
        -d '{"messages": [{"role": "user", "content": "你好"}], "stream": true}'
    """
    import torch
    import uvicorn

    from qwen_core.chat import ChatModel
    from qwen_core.serve import make_app

    folder = model_folder_of(home, named, run_key)
    is_local = host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)
    key = os.environ.get("QWEN_CORE_API_KEY") or None
    if key is None and not is_local:
        key = secrets.token_urlsafe(24)
        click.echo(f"API key: {key}   (set QWEN_CORE_API_KEY to choose it)")
    chat = ChatModel(folder, device or ("cuda" if torch.cuda.is_available() else "cpu"))
    hosts = ("127.0.0.1", "localhost", "[::1]", host) if is_local else ("*",)
    click.echo(f"model {folder}\nserving http://{host}:{port}/v1 (Ctrl-C ends)")
    uvicorn.run(make_app(chat, name, key, hosts), host=host, port=port, log_level="warning")


def _is_address(host: str) -> bool:
    """Tell an IP address from a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
