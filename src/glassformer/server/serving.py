"""What is served, and the server around it: models with their workers, addresses, keys, an orderly end."""

from __future__ import annotations

import errno
import functools
import ipaddress
import logging
import os
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from glassformer.errors import GlassformerError, MissingExtraError, UsageError
from glassformer.generation import Engine, commands_for, from_the_folder
from glassformer.hub import load
from glassformer.processors.tokenizers import Tokenizer
from glassformer.server.looking import Looker
from glassformer.server.worker import Worker

WAITING_CONNECTIONS = 2048  # that are made and not yet taken
DRAIN_SECONDS = 30  # that answers under way are given when the server is told to stop


class Served:
    """One model under its name. It writes (`worker`), or it gives vectors for texts (`worker` is None)."""

    def __init__(self, name: str, model: Any, tokenizer: Tokenizer, **engine: Any):
        self.name, self.model, self.tokenizer = name, model, tokenizer
        self.created = int(time.time())
        self.worker: Worker | None = None
        if "generate" in commands_for(model, tokenizer):
            self.worker = Worker(functools.partial(Engine, model, tokenizer, **engine))
            self.looker = Looker(model, tokenizer)  # for errands of the worker alone
        elif getattr(model.config, "stem", None) != "text":
            raise UsageError(f"{name}: a {type(model).__name__} cannot be served; decoders and encoders of text can")

    @property
    def chats(self) -> bool:
        """Whether it has a chat template."""
        return self.worker is not None and self.tokenizer.chat_template is not None

    @property
    def defaults(self) -> dict[str, Any]:
        """What the model's folder sets and a request overrides: by the names of a request's fields."""
        names = {"max_new_tokens": "max_tokens"}
        return {names.get(name, name): value for name, value in from_the_folder(self.model, {}).items()}


def open_models(paths: Sequence[str], *, device: str, dtype: str, **engine: Any) -> dict[str, Served]:
    """The models at these paths by their names; a folder of runs gives all of its runs.

    Raises:
        UsageError: none, or two of the same name. ModelFolderError, TokenizerError: as `load`.
    """
    found: dict[str, Served] = {}
    for path in paths:
        folder = Path(path)
        inside = sorted(entry.parent.parent for entry in folder.glob("*/model/config.json"))
        whole = (folder / "config.json").is_file() or (folder / "model" / "config.json").is_file()
        for each in [path] if whole or not inside else [str(run) for run in inside]:
            name = Path(each).name if Path(each).exists() else each
            if name in found:
                raise UsageError(f"{each}: another model is called {name} already; serve one of the two")
            model, tokenizer = load(each, device=device, dtype=dtype)
            found[name] = Served(name, model, tokenizer, **engine)
    if not found:
        raise UsageError("no model to serve; name one, for example: glassformer serve smollm2-135m-instruct")
    return found


def check_address(host: str, api_key: str | None, no_auth: bool) -> None:
    """Raise `UsageError` for an address that others can reach, without a key and without a word that this is meant."""
    if is_local(host) or api_key or no_auth:
        return
    raise UsageError(
        f"--host {host} lets other machines in: give --api-key SECRET, or say --no-auth if everybody may use it"
    )


def is_local(host: str) -> bool:
    """Whether an address is reached from this machine alone.

    >>> is_local("127.0.0.1"), is_local("localhost"), is_local("0.0.0.0")
    (True, True, False)
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class AddressError(GlassformerError):
    """The address cannot be listened on: its port is in use, or it is none of this machine's."""


def bind(host: str, port: int) -> list[socket.socket]:
    """Sockets for all addresses that a host name stands for, bound and not yet listening; port 0: any free one.

    Raises:
        AddressError: the port is in use or not allowed, or the name stands for no address of this machine.
    """
    sockets: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, address in dict.fromkeys(found):
            one = socket.socket(family, kind, protocol)
            sockets.append(one)
            if os.name == "posix":  # elsewhere it would let two servers share a port
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            one.bind((address[0], port or sockets[0].getsockname()[1], *address[2:]))
    except OSError as error:
        for one in sockets:
            one.close()
        raise _address_error(error, host, port) from None
    return sockets


def listen(sockets: Sequence[socket.socket], host: str) -> str:
    """Let clients connect: from now on they are answered, or wait. The address that they use.

    Raises:
        AddressError: another program was faster.
    """
    port: int = sockets[0].getsockname()[1]
    try:
        for one in sockets:
            one.listen(WAITING_CONNECTIONS)
    except OSError as error:
        raise _address_error(error, host, port) from None
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _address_error(error: OSError, host: str, port: int) -> AddressError:
    free = "choose another one with --port NUMBER, or --port 0 for any that is free"
    if error.errno == errno.EADDRINUSE:
        return AddressError(f"port {port} of {host} is in use by another program; end it, or {free}")
    if error.errno == errno.EACCES:
        return AddressError(f"this user may not listen on port {port}; {free} (1024 or more)")
    reason = "it is no address of this machine" if error.errno == errno.EADDRNOTAVAIL else error.strerror or str(error)
    return AddressError(f"cannot listen on {host} port {port}: {reason}; use --host 127.0.0.1 for this machine alone")


def serve(
    models: dict[str, Served],
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    api_key: str | None = None,
    sockets: list[socket.socket] | None = None,
) -> None:
    """Answer until told to stop (Ctrl-C, SIGTERM): then what was begun is finished, and nothing new is taken.

    Args:
        sockets: of `bind(host, port)`, for callers that have bound them already.

    Raises:
        AddressError: as `bind`. MissingExtraError: without the extra `serve`.
    """
    try:
        import uvicorn
    except ImportError:
        raise MissingExtraError("the server", "serve") from None
    from glassformer.server.app import create_app

    torch.set_grad_enabled(False)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    app = create_app(models, api_key=api_key, local=is_local(host))
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=DRAIN_SECONDS, server_header=False)
    uvicorn.Server(config).run(sockets or bind(host, port))
