"""`glassformer plan`: what is printed fits 80 columns and is what --json says."""

from __future__ import annotations

import json

import pytest

SIZES = ["model.n_layer=1", "model.n_head=2", "model.n_embd=16", "model.block_size=11", "training.steps=40"]


def test_the_table_and_the_json_say_the_same(glassformer, play):
    words = ["plan", *SIZES, "training.batch_size=3", "--data", play, "--no-probe"]
    shown, result = glassformer(*words), json.loads(glassformer(*words, "--json").out)
    assert (shown.code, shown.err) == (0, "") and max(map(len, shown.out.splitlines())) <= 80
    assert f"{result['parameters']:,}" in shown.out and "no curve" in shown.out and "no probe" in shown.out
    for part, count in result["parameters_by_part"].items():
        assert part in shown.out and f"{count:,}" in shown.out
    for key in ("parameters", "memory_bytes", "seconds", "seconds_per_step", "val_loss", "val_loss_interval", "basis"):
        assert key in result
    assert result["memory_bytes"]["peak"] > result["memory_bytes"]["libraries"] > 0


def test_machines_one_does_not_have(glassformer):
    words = ["plan", "gpt2-124m", "model.size=gpt3-175b", "training.sharding=full", "training.batch_size=64"]
    machine = ["--devices", 64, "--device-memory", "80GB", "--device-flops", "989e12"]
    result = glassformer(*words, *machine)
    assert result.code == 0 and "57,982,058,496" in result.out and "of 80.0 GB" in result.out


@pytest.mark.parametrize("shown", ["80 pounds", "GB", "1.2.3GB"])
def test_no_amount_of_memory(refused, shown):
    line = f"--device-memory={shown} is no amount of memory; write it like 80GB"
    refused("plan", "gpt2-124m", "--device-memory", shown, code=2, line=line)
