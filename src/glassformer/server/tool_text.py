"""Calls of tools in an answer: what is text, what is a call, whole and while it streams."""

from __future__ import annotations

import json
import uuid
from typing import Any

from glassformer.generation import StopStrings
from glassformer.generation.tools import Call, ToolForm
from glassformer.server.middleware import APIError


class ToolText:
    """The text of one sample. `push` gives what is certainly text, `finish` the rest and the calls.

    Args:
        form: how the chat template writes calls.
        opening: the beginning of a call that the model was made to continue; "": it decides by itself.
        most: how many calls are given; None: all.
    """

    def __init__(self, form: ToolForm, opening: str = "", most: int | None = None):
        self.form, self.opening, self.most = form, opening, most
        self.text, self.given = opening, 0
        self._stop = StopStrings([form.mark])

    def push(self, text: str) -> str:
        """Take new text; return what is no call."""
        self.text += text
        if self.opening:
            return ""
        if self.form.mark:
            shown = self._stop.push(text)
        else:  # a call is a whole turn, and begins with its object
            begun = self.text.lstrip()
            shown = "" if begun[:1] in ("", "{") else self.text[self.given :]
        self.given += len(shown)
        return shown

    def finish(self) -> tuple[str, list[dict[str, Any]]]:
        """(the rest of the text, the calls as the API has them).

        Raises:
            APIError: a call was required, and what the model wrote is none.
        """
        content, calls = self.form.read(self.text)
        calls = [call for call in calls if call.name][: self.most]
        if calls:
            return content[self.given :], [_in_openais_form(call) for call in calls]
        if self.opening:
            raise APIError(500, "a call of a tool was required, and the model wrote none; try again, or use auto")
        return self.text[self.given :], []


def _in_openais_form(call: Call) -> dict[str, Any]:
    arguments = call.arguments if isinstance(call.arguments, str) else json.dumps(call.arguments, ensure_ascii=False)
    function = {"name": call.name, "arguments": arguments}
    return {"id": f"call_{uuid.uuid4().hex[:24]}", "type": "function", "function": function}
