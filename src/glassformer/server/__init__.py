"""Level 9: models behind an HTTP API that the OpenAI clients speak. Needs the extra `serve`."""

from glassformer.server.app import create_app
from glassformer.server.serving import Served, serve

__all__ = ["Served", "create_app", "serve"]
