"""Whatever is sent, the server makes no mistake of its own: schemathesis makes requests up from the API's description.

GLASSFORMER_EXAMPLES=500 python -m pytest tests/server/test_any_input.py      the long form
"""

from __future__ import annotations

import os

import pytest

pytest.importorskip("fastapi", reason="needs the extra serve")
schemathesis = pytest.importorskip("schemathesis", reason="needs the package schemathesis")

from hypothesis import HealthCheck, settings  # noqa: E402

from glassformer.server import create_app  # noqa: E402

EXAMPLES = int(os.environ.get("GLASSFORMER_EXAMPLES", "12"))
schema = schemathesis.openapi.from_dict(create_app({}).openapi())
schema.config.phases.coverage.enabled = "GLASSFORMER_EXAMPLES" in os.environ  # hundreds of border cases


@schema.parametrize()
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
def test_no_request_makes_the_server_fail(case, url):
    if isinstance(case.body, dict):  # valid bodies shall not write novels
        long = ("max_tokens", "max_completion_tokens", "n")
        case.body = {**case.body, **{name: 3 for name in long if isinstance(case.body.get(name), int)}}
        if isinstance(case.body.get("messages"), list):
            case.body.setdefault("max_tokens", 3)
    answer = case.call(base_url=url)
    assert answer.status_code < 500, (case.body, answer.text)
    if answer.status_code >= 400:
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
