"""The page at `/`: plain files, served as they lie in `web/`."""

from __future__ import annotations

import mimetypes
from pathlib import Path

from fastapi import FastAPI, Response
from fastapi.responses import FileResponse
from starlette.staticfiles import StaticFiles

WEB = Path(__file__).with_name("web")


def add_page(app: FastAPI) -> None:
    """`/` is the page, `/web/...` are its modules."""
    mimetypes.add_type("text/javascript", ".js")  # some systems say otherwise, and then no module is run

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return FileResponse(WEB / "index.html", headers={"Cache-Control": "no-cache"})

    app.mount("/web", _Modules(directory=WEB), name="web")


class _Modules(StaticFiles):
    """Files that a browser asks for again whenever the page is opened: with a new release comes a new page."""

    def file_response(self, *args: object, **kwargs: object) -> Response:
        response = super().file_response(*args, **kwargs)  # type: ignore[arg-type]
        response.headers["Cache-Control"] = "no-cache"
        return response
