"""Level 8: models behind an HTTP API that the OpenAI clients speak. Needs the extra `serve`."""

from glassformer.renamed import keep_old_names
from glassformer.server.app import create_app, serve
from glassformer.server.worker import ModelHandle

__all__ = ["ModelHandle", "create_app", "serve"]

keep_old_names(__name__)
