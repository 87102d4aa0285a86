"""The whole thread at toy size: data show -> tune sft -> rank -> tune dpo -> chat and serve."""

import json

import pytest

from glassformer import recipes

WORDS = ("red", "blue", "green", "black")


def jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """chats.jsonl, prompts.jsonl and a run of a base model with a chat's tokens."""
    folder = tmp_path_factory.mktemp("assistant")
    prompts = [[{"role": "user", "content": f"say {a} {b}"}] for a in WORDS for b in WORDS]
    answers = [{"role": "assistant", "content": prompt[0]["content"][4:]} for prompt in prompts]
    rows = [{"messages": [*prompt, answer]} for prompt, answer in zip(prompts, answers, strict=True)] * 4
    chats = jsonl(folder / "chats.jsonl", rows)
    jsonl(folder / "prompts.jsonl", [{"prompt": prompt} for prompt in prompts[:6]])
    words = ["model.n_layer=2", "model.n_head=2", "model.n_embd=32", "model.block_size=64", "training.steps=80"]
    words += ["task.kind=sft", "training.precision=fp32"]
    recipes.train(None, words, data=chats, out=folder / "base")
    return folder


def test_the_whole_thread(glassformer, folder):
    def run(*words, stdin=b"", code=0):
        result = glassformer(*words, stdin=stdin)
        assert result.code == code, result.err
        return result.out

    chats, prompts, pairs = (str(folder / name) for name in ("chats.jsonl", "prompts.jsonl", "pairs.jsonl"))
    base, sft, dpo = (str(folder / name) for name in ("base", "sft", "dpo"))
    shown = run("data", "show", chats, "--model", base, "--rows", 1)
    assert "[[" in shown and "<|im_end|>]]" in shown and "that of" in shown
    run("data", "check", chats, "--model", base, code=0)

    small = ["-q", "training.steps=12", "training.precision=fp32"]
    assert f"glassformer chat {sft}" in run("tune", "sft", "--data", chats, "--model", base, "--out", sft, *small)
    answer = run("chat", sft, "-m", "say red blue", "-n", "12")
    assert answer.strip() and "<|im_end|>" not in answer

    rank = ["rank", sft, prompts, "--out", pairs, "--temperature", "2", "-n", "6"]
    run(*rank, stdin=b"1\n2\nx\nu\n1\nq\n")
    shown = run(*rank, stdin=b"1\n2\n1\ns\n")  # continues with the third prompt
    assert "prompt 3 of 6" in shown and "prompt 1 of 6" not in shown and "tune dpo --data" in shown
    rows = [json.loads(line) for line in (folder / "pairs.jsonl").read_text().splitlines()]
    assert len(rows) == 5 and all(row["chosen"] != row["rejected"] for row in rows)

    run("tune", "dpo", "--data", pairs, "--model", sft, "--out", dpo, *small)
    assert run("chat", dpo, "-m", "say red blue", "-n", "12").strip()


def test_a_tuned_run_is_served_at_once(folder):
    from fastapi.testclient import TestClient

    from glassformer.server.app import create_app, open_models

    models = open_models([str(folder / "base")], device="cpu", dtype="fp32")
    with TestClient(create_app(models), base_url="http://localhost") as client:
        body = {"model": next(iter(models)), "messages": [{"role": "user", "content": "say red"}], "max_tokens": 8}
        reply = client.post("/v1/chat/completions", json=body)
    assert reply.status_code == 200 and "<|im_end|>" not in reply.json()["choices"][0]["message"]["content"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["rank", "base", "prompts.jsonl", "--out", "pairs.txt"], "pairs are lines of JSON"),
        (["rank", "base", "prompts.jsonl", "--out", "p.jsonl", "--answers", "5"], "--answers"),
        (["tune", "sft", "--data", "chats.jsonl"], "--model MODEL"),
        (["tune", "dpo", "--data", "chats.jsonl", "--model", "base"], "chosen and rejected"),
        (["data", "show", "chats.jsonl", "--template", "chatmk"], "did you mean chatml"),
    ],
)
def test_mistakes_are_one_line(glassformer, folder, monkeypatch, words, message):
    monkeypatch.chdir(folder)
    result = glassformer(*words)
    assert result.code and message in result.err and result.err.count("\n") == 1
