"""The results as figures: gold reward against KL, the proxy beside it, the last point of each method, seconds."""

from __future__ import annotations

from typing import Any

from glassformer.figures import Column, Curves, Figure, Line, Note, Table

NAMES = {"dpo": "DPO", "ppo": "PPO", "grpo": "GRPO", "best-of-n": "best-of-n", "rejection": "rejection sampling"}
DISTINCT = {
    "distinct_1": "tokens",
    "distinct_2": "pairs",
    "distinct_1_within": "tokens within",
    "distinct_2_within": "pairs within",
}


def figures_of(result: dict[str, Any]) -> list[Figure]:
    """All of a page, in order."""
    sft, methods = result["sft"], result["methods"]
    gold, seeds, settings = result["gold"], result["seeds"], result["settings"]
    over = f"{seeds} seeds" if seeds > 1 else "prompts, of one seed"
    right = result["reward_accuracy"]
    proxy = (
        f"The reward model orders {sum(right) / len(right):.1%} of held-out pairs as the judge does. " if right else ""
    )
    figures: list[Figure] = [
        Note(
            f"A model writes {settings['answer_tokens']} tokens after {settings['prompt_tokens']} of a film review. "
            "Gold reward: log-odds that a hidden classifier finds the review positive; it is right on "
            f"{gold['accuracy']:.1%} of {gold['n']:,} held-out reviews, and on {gold['accuracy_of_pieces']:.1%} of "
            f"their first 40 words. Every method generated {settings['budget']:,} answers for its training (best-of-n: "
            f"none, and n for each answer). {proxy}Intervals: 95 %, over {over}; "
            f"{settings['measured']} held-out prompts."
        ),
        Curves(
            "Gold reward against KL to SFT",
            [line(NAMES[name], [sft, *points], "gold") for name, points in methods.items()],
            "KL of an answer, nats",
            "gold reward, log-odds",
            levels=[("SFT", sft["gold"])],
            y_from_zero=False,
        ),
    ]
    if "proxy" in sft:
        for name, points in methods.items():
            both = [(label, [standard(point, sft, key) for point in (sft, *points)]) for label, key in PROXY]
            x = [point["kl"] for point in (sft, *points)]
            lines = [Line(label, x, y, dots=True) for label, y in both]
            title = f"{NAMES[name]}: what the reward model sees, and what is true"
            figures.append(Curves(title, lines, "KL of an answer, nats", "deviations of SFT's answers", compact=True))
    return [
        *figures,
        table(result),
        varied(result),
        *peaks(result),
        distinct_table(result),
        *answers(result),
        seconds(result),
    ]


PROXY = (("proxy reward", "proxy"), ("gold reward", "gold"))


def line(name: str, points: list[dict[str, Any]], key: str) -> Line:
    y, width = [p[key] for p in points], [p.get(f"{key}_interval", 0.0) for p in points]
    low, high = ([a + sign * b for a, b in zip(y, width, strict=True)] for sign in (-1, 1))
    return Line(name, [p["kl"] for p in points], y, low, high, dots=True)


def standard(point: dict[str, Any], sft: dict[str, Any], key: str) -> float:
    """A reward in standard deviations of SFT's answers, from their mean."""
    return (point[key] - sft[key]) / sft[f"{key}_spread"]


def last_points(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """SFT, and the last point of each method, by the name that is shown."""
    found = {"SFT": result["sft"]}
    for name, points in result["methods"].items():
        n = f", n = {points[-1]['n']:.0f}" if "n" in points[-1] else ""
        found[NAMES[name] + n] = points[-1]
    return found


def answers(result: dict[str, Any]) -> list[Figure]:
    """What each method writes after the same prompts."""
    last = last_points(result)
    found: list[Figure] = []
    for number, (prompt, _) in enumerate(result["sft"]["answers"]):
        lines = [f"{name}: {prompt}{point['answers'][number][1]}" for name, point in last.items()]
        found.append(Note("\n".join(" ".join(line.split()) for line in lines), "After the same prompt", verbatim=True))
    return found


def table(result: dict[str, Any]) -> Table:
    """The last point of each method."""
    numbers = {"gold": 2, "gold_interval": 2, "proxy": 2, "kl": 1, "length": 1}
    names = ("gold", "±", "proxy", "KL", "tokens")
    columns = [Column(name, "number", digits) for name, digits in zip(names, numbers.values(), strict=True)]
    rose = ["", *("yes" if found["gold_rose"] else "no" for found in result["summary"].values())]
    rows = [
        [name, *(point.get(key) for key in numbers), above]
        for (name, point), above in zip(last_points(result).items(), rose, strict=True)
    ]
    title = "Each method at the end of its training; above SFT: with intervals apart"
    return Table(title, [Column("method"), *columns, Column("above SFT")], rows)


def varied(result: dict[str, Any]) -> Table:
    """Where gold was highest while answers stayed varied."""
    keys = {"gold": 2, "gold_interval": 2, "kl": 1, "distinct_1": 3, "distinct_1_within": 3}
    names = ("gold", "±", "KL", "distinct tokens", "within an answer")
    sft = ["SFT", *(0.0 if key == "kl" else result["sft"].get(key) for key in keys), ""]
    rows = [sft]
    for name, found in result["summary"].items():
        point = found["varied"] or {}
        above = "yes" if point.get("gold_rose") else "no"
        rows.append([NAMES[name], *(point.get(key) for key in keys), above if point else "always less varied"])
    columns = [Column("method"), *(Column(n, "number", d) for n, d in zip(names, keys.values(), strict=True))]
    title = "Highest gold while distinct tokens stay within 10 % of SFT; above SFT: with intervals apart"
    return Table(title, [*columns, Column("above SFT")], rows)


def peaks(result: dict[str, Any]) -> list[Figure]:
    """Over-optimization: where gold was highest, and what has changed since, of the methods that use the proxy."""
    keys = {"peak_kl": "gold highest at KL", "gold_since_peak": "gold since", "proxy_since_peak": "proxy since"}
    rows = [[NAMES[name], *(found[key] for key in keys)] for name, found in result["summary"].items()]
    columns = [Column("method"), *(Column(name, "number", 2) for name in keys.values())]
    return [Table("Where the proxy is over-optimised", columns, rows)] if "proxy" in result["sft"] else []


def distinct_table(result: dict[str, Any]) -> Table:
    """Shares of distinct tokens and pairs."""
    columns = [Column("method"), *(Column(name, "number", 3) for name in DISTINCT.values())]
    rows = [[name, *(point[key] for key in DISTINCT)] for name, point in last_points(result).items()]
    return Table("Distinct tokens and pairs as shares: of all answers together, and within an answer", columns, rows)


def seconds(result: dict[str, Any]) -> Table:
    """What the stages took."""
    rows = [[name, spent] for name, spent in result["seconds"].items()]
    footer = [["all", sum(result["seconds"].values())]]
    return Table("Seconds of each stage", [Column("stage"), Column("seconds", "number", 1)], rows, footer=footer)
