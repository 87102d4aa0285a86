"""What `compare_history` found, as figures: charts and a table of each of its experiments."""

from __future__ import annotations

from typing import Any

from glassformer.figures import Column, Curves, Figure, Line, Note, Table

# n-grams are grey; the same model has the same colour in every chart
COLORS = {
    "n-gram": 7,
    "bigram": 3,
    "mlp": 4,
    "rnn": 5,
    "gru": 6,
    "lstm": 0,
    "transformer": 1,
    "seq2seq": 0,
    "seq2seq-attention": 6,
    "lstm-attention": 6,
}


def history_figures(result: dict[str, Any]) -> dict[str, list[Figure]]:
    """The figures of each experiment that was run, by its name."""
    drawn = {"loss": _loss, "bottleneck": _bottleneck, "recall": _recall}
    return {name: drawn[name](result[name]) for name in drawn if name in result}


def _loss(loss: dict[str, Any]) -> list[Figure]:
    settings, text, machine, curves = loss["settings"], loss["text"], loss["machine"], loss["curves"]
    seen = settings["steps"] * settings["batch_size"] * settings["block_size"]
    counted = [(f"{p['n']}-grams, counted", p["loss"]) for p in curves[0]["points"] if 1 < p["n"] < 6]
    neural = [curve for curve in curves if curve["kind"] != "n-gram"]
    title = "Validation loss against operations of training"
    more: dict[str, Any] = {"y_axis": "nats a character", "x_log": True, "y_from_zero": False}
    rows = []
    for curve in curves:
        for p in curve["points"] if curve["kind"] == "n-gram" else curve["points"][-1:]:
            name = f"{p['n']}-grams, counted" if curve["kind"] == "n-gram" else curve["name"]
            parameters = p["parameters"] if curve["kind"] == "n-gram" else curve["parameters"]
            rows.append((name, parameters, f"{p['flops']:.1e}", p["seconds"], p["loss"], p["interval"]))
    columns = (
        Column("model"),
        Column("parameters", "count"),
        Column("operations"),
        Column("seconds", "number", 1),
        Column("loss", "number"),
        Column("95 % interval, ±", "number"),
    )
    return [
        Note(
            f"What a loss costs. Each neural model sees the same {seen:,} characters of {text['source']} in the same "
            f"order; n-grams count the {text['train_tokens']:,} characters of the training text once. The loss is that "
            f"of all {text['validation_tokens'] - 1:,} predictions of the held-out text, in windows of "
            f"{settings['block_size']}."
        ),
        Curves(title, [_line(c, "flops", "loss") for c in neural], "operations (FLOPs)", levels=counted, **more),
        Curves(
            "The same against seconds of training", [_line(c, "seconds", "loss") for c in curves], "seconds", **more
        ),
        Table("Every model at the end of its training", columns, rows),
        Note(
            "Seconds are those of the processor, all threads together (on a GPU: by the clock). Operations are counted "
            f"by the convention of PaLM, appendix B: 6 for each weight and token. {machine['device']}, threads: "
            f"{machine['threads']}, torch {machine['torch']}, seed {settings['seed']}."
        ),
    ]


def _bottleneck(bottleneck: dict[str, Any]) -> list[Figure]:
    settings, curves = bottleneck["settings"], bottleneck["curves"]
    charts = [
        Curves(title, [_line(c, "length", key) for c in curves], "letters of the string", "share")
        for key, title in (
            ("exact", "Strings copied without a mistake"),
            ("tokens", "Letters predicted correctly after the correct letters before them"),
        )
    ]
    lengths = [Column(f"{p['length']}", "number", 2) for p in curves[0]["points"]]
    columns = (Column("model"), Column("parameters", "count"), Column("seconds", "count"), *lengths)
    rows = [(c["name"], c["parameters"], c["seconds"], *(p["exact"] for p in c["points"])) for c in curves]
    return [
        Note(
            f"What fits into one vector. Strings of random letters ({settings['letters']} of them) are to be copied, "
            f"after {settings['steps']:,} steps of {settings['batch_size']} strings of {settings['shortest']} to "
            f"{settings['longest']} letters. Each length is tested on {settings['examples']} strings."
        ),
        *charts,
        Table("Share of strings copied without a mistake, by length", columns, rows),
    ]


def _recall(recall: dict[str, Any]) -> list[Figure]:
    settings, curves = recall["settings"], recall["curves"]
    x = "tokens between the fact and the answer"
    charts = [
        Curves("Right answers", [_line(c, "distance", "right") for c in curves], x, "share", x_log=True),
        Curves(
            "Gradient of the loss at the fact, before training",
            [_line(c, "distance", "gradient_before") for c in curves],
            x,
            x_log=True,
            y_log=True,
        ),
        Curves("Seconds of a step", [_line(c, "distance", "seconds") for c in curves], x, x_log=True),
    ]
    distances = [Column(f"{p['distance']}", "number", 2) for p in curves[0]["points"]]
    columns = (Column("model"), Column("parameters", "count"), Column("rate"), Column("seconds", "count"), *distances)
    rows = [
        (c["name"], c["parameters"], f"{c['learning_rate']:g}", c["train_seconds"], *(p["right"] for p in c["points"]))
        for c in curves
    ]
    return [
        Note(
            '"I grew up in France ... I speak fluent ___": one of twenty places counts, the words between name others. '
            f"Each model is trained for {settings['steps']:,} steps of {settings['batch_size']} texts of mixed "
            f"distances, with each of {len(settings['learning_rates'])} learning rates, and the best is kept. Each "
            f"distance is tested on {settings['examples']} texts; guessing is right in 1 of 20."
        ),
        *charts,
        Table("Share of right answers, by distance", columns, rows),
    ]


def _line(curve: dict[str, Any], x: str, y: str) -> Line:
    points = sorted(curve["points"], key=lambda p: p[x])  # a longer n-gram may be counted in less time
    places, values = [p[x] for p in points], [p[y] for p in points]
    return Line(curve["name"], places, values, color=COLORS[curve["kind"]], dots=True)
