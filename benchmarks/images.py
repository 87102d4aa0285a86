"""A Vision Transformer beside what came before it, on images: a linear probe, and a ConvNet of equal parameters.

    python benchmarks/images.py [--steps 1500] [--tune-steps 150] [--data emoji]
    python benchmarks/images.py --sizes [--tune-steps 150] [--plot accuracy-by-size.svg]

Prints a line of JSON for each model; those that stand in --rows FILE are not trained again. Emoji in ten categories:
the shape of the recipe `emoji`, a plain ConvNet whose width gives it as many parameters, and logistic regression on
pixels. Both networks are trained alike: AdamW, cosine schedule, batches of 64, smoothing, steps and random changes of
the images; of three learning rates each gets the one that is best on validation images after --tune-steps. Accuracy is
of the test images with half the width of its 95 % interval, from the spread between groups of images that differ little
(an emoji in all skin tones); `by class` is the mean over classes.

--sizes: MNIST, accuracy by the number of training images. Patches are read by one linear layer and their mean is
classified. `neighbourhood`: a patch attends to those beside it (model.patterns=graph(1)), as a convolution does.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import _one_line  # noqa: F401  (first: it reports what is missing)
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glassformer.data.augmentation import Augmentation
from glassformer.data.images import LabelledImage, load_images
from glassformer.evaluation.estimate import standard_error
from glassformer.figures import Curves, save
from glassformer.figures.primitives import Line
from glassformer.models import Encoder, EncoderConfig
from glassformer.processors.image import ImageProcessor
from glassformer.threads import set_threads

BATCH, DECAY, SMOOTHING, WARMUP = 64, 0.05, 0.1, 0.08
RATES = {"ViT": (7e-4, 1.5e-3, 3e-3), "ConvNet": (1.5e-3, 5e-3, 1.5e-2)}
CHANGES = {
    "emoji": Augmentation(rotation=15, scaling=0.15, shear=0.1, translation=0.1, flip=True),
    "mnist": Augmentation(rotation=15, scaling=0.15, shear=0.2, translation=0.15),
}
SIZES = {100: 200, 300: 300, 1000: 450, 3000: 700, 7600: 1000}
"""Steps by the number of training images."""


class Images(NamedTuple):
    """pixels (N, channels, size, size) fp32, labels (N,), groups (N,)."""

    pixels: np.ndarray
    labels: np.ndarray
    groups: np.ndarray

    def first(self, n: int) -> Images:
        return Images(*(part[:n] for part in self))


def read(name: str) -> dict[str, Images]:
    """A named set by split; training images in random order."""
    images, known = load_images(name, quiet=True)
    assert known is not None
    mean = (0.5,) * known.n_channels
    processor = ImageProcessor(size=known.size, mean=mean, std=mean)
    labels = sorted({image.label for rows in images.values() for image in rows})
    order = np.random.default_rng(0).permutation(len(images["train"]))
    images["train"] = [images["train"][i] for i in order]
    return {split: _arrays(rows, processor, labels) for split, rows in images.items()}


def _arrays(rows: list[LabelledImage], processor: ImageProcessor, labels: list[str]) -> Images:
    pixels = processor.encode_batch([row.image for row in rows])
    groups = np.unique([row.group or row.key for row in rows], return_inverse=True)[1]
    return Images(pixels, np.array([labels.index(row.label) for row in rows]), groups)


class ConvNet(nn.Module):
    """3 x 3 convolutions with batch norm, two of which halve the image, and the mean over places."""

    def __init__(self, width: int, n_channels: int, n_classes: int):
        super().__init__()
        widths = [(n_channels, width, 1), (width, 2 * width, 2), (2 * width, 4 * width, 2), (4 * width, 4 * width, 1)]
        self.body = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2d(i, o, 3, stride, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU())
                for i, o, stride in widths
            )
        )
        self.head = nn.Linear(4 * width, n_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(images).mean(dim=(2, 3)))  # type: ignore[no-any-return]


class ViT(nn.Module):
    """An `Encoder` and its head over classes."""

    def __init__(self, dropout: float = 0.0, **fields: Any):
        super().__init__()
        self.encoder = Encoder(EncoderConfig.make(vocab_size=1, stem="patches", patch_size=4, **fields))
        self.encoder.init_weights("unit")
        self.encoder.set_dropout(dropout)

    def forward(self, images: Tensor) -> Tensor:
        return self.encoder.sequence_logits(self.encoder(images))


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def conv_net_like(model: nn.Module, **sizes: int) -> Callable[[], ConvNet]:
    """What makes the ConvNet whose number of parameters is nearest."""
    n = parameters(model)
    width = min(range(4, 64), key=lambda width: abs(parameters(ConvNet(width, **sizes)) - n))
    return lambda: ConvNet(width, **sizes)


def fit(make: Callable[[], nn.Module], train: Images, steps: int, rate: float, changes: Augmentation) -> nn.Module:
    """A model trained, in eval mode; the batches are the same whatever the model."""
    torch.manual_seed(0)
    random, model = np.random.default_rng(0), make().train()
    decayed = [p for p in model.parameters() if p.dim() >= 2]
    rest = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": decayed, "weight_decay": DECAY}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=rate)
    warmup = max(1, round(WARMUP * steps))
    order = np.array([], dtype=int)
    for step in range(steps):
        if len(order) < BATCH:
            order = np.concatenate([order, random.permutation(len(train.labels))])
        batch, order = order[:BATCH], order[BATCH:]
        images = np.stack([changes(train.pixels[i], random) for i in batch])
        loss = F.cross_entropy(
            model(torch.from_numpy(images)), torch.from_numpy(train.labels[batch]), label_smoothing=SMOOTHING
        )
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        part = (
            (step + 1) / warmup if step < warmup else (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))) / 2
        )
        for group in optimizer.param_groups:
            group["lr"] = rate * part
        optimizer.step()
    return model.eval()


@torch.inference_mode()
def predictions(model: nn.Module, images: Images) -> np.ndarray:
    batches = torch.from_numpy(images.pixels).split(256)
    return torch.cat([model(batch).argmax(dim=1) for batch in batches]).numpy()


def scores(predicted: np.ndarray, images: Images) -> dict[str, Any]:
    """Accuracy with half the width of its 95 % interval, and the mean over classes, in per cent."""
    hits = (predicted == images.labels).astype(float)
    _, groups = np.unique(images.groups, return_inverse=True)
    sums, counts = (torch.from_numpy(np.bincount(groups, weights=w)) for w in (hits, np.ones(len(hits))))
    by_class = np.mean([hits[images.labels == label].mean() for label in np.unique(images.labels)])
    error = 1.96 * standard_error(sums, counts)
    return {
        "accuracy": [round(100 * float(hits.mean()), 2), round(100 * error, 2)],
        "by class": round(100 * float(by_class), 2),
    }


def tuned(
    make: Callable[[], nn.Module], kind: str, train: Images, held_out: Images, steps: int, changes: Augmentation
) -> tuple[float, dict[str, float]]:
    """The best of the learning rates, and the accuracy on validation images by rate, in per cent."""
    found = {}
    for rate in RATES[kind]:
        model = fit(make, train, steps, rate, changes)
        found[rate] = round(100 * float((predictions(model, held_out) == held_out.labels).mean()), 2)
    return max(found, key=lambda rate: found[rate]), {f"{rate:g}": value for rate, value in found.items()}


def linear_probe(splits: dict[str, Images]) -> dict[str, Any]:
    """Logistic regression on pixels, its strength chosen on validation images."""
    from sklearn.linear_model import LogisticRegression

    def fitted(strength: float) -> Any:
        train = splits["train"]
        model = LogisticRegression(C=strength, max_iter=300)
        return model.fit(train.pixels.reshape(len(train.labels), -1), train.labels)

    def score(model: Any, images: Images) -> float:
        return float(model.score(images.pixels.reshape(len(images.labels), -1), images.labels))

    models = {strength: fitted(strength) for strength in (1e-4, 1e-3, 1e-2)}
    best = max(models, key=lambda strength: score(models[strength], splits["validation"]))
    test = splits["test"]
    found = scores(models[best].predict(test.pixels.reshape(len(test.labels), -1)), test)
    return {"C": best, "parameters": models[best].coef_.size + len(models[best].coef_), **found}


Row = dict[str, Any]
Maker = Callable[[Row], Iterator[Row]]
"""Goes on from what is known of a row, and yields it whenever more is known."""


def compare(name: str, steps: int, tune_steps: int) -> dict[str, Maker]:
    """What makes the row of each kind of model, on one set of images."""
    splits, changes = read(name), CHANGES[name]
    _, C, size, _ = splits["train"].pixels.shape
    shape: dict[str, Any] = {"n_channels": C, "n_classes": int(splits["train"].labels.max()) + 1}

    def vit() -> nn.Module:
        return ViT(n_layer=3, n_head=4, n_embd=64, image_size=size, patch_convolutions=True, dropout=0.1, **shape)

    makers = {"ConvNet": conv_net_like(vit(), **shape), "ViT": vit}

    def most_common() -> Row:
        number = np.bincount(splits["train"].labels).argmax()
        return scores(np.full(len(splits["test"].labels), number), splits["test"])

    def once(make: Callable[[], Row]) -> Maker:
        return lambda known: iter([known or make()])

    def trained(kind: str) -> Row:
        rate, tried = tuned(makers[kind], kind, splits["train"], splits["validation"], tune_steps, changes)
        model = fit(makers[kind], splits["train"], steps, rate, changes)
        found = scores(predictions(model, splits["test"]), splits["test"])
        return {"parameters": parameters(model), "steps": steps, "rate": rate, "validation by rate": tried, **found}

    rows = {"the most common class": once(most_common), "linear probe": once(lambda: linear_probe(splits))}
    return rows | {kind: once(lambda kind=kind: trained(kind)) for kind in makers}


def by_size(tune_steps: int, sizes: dict[int, int]) -> dict[str, Maker]:
    """What makes the row of each model, on MNIST: its accuracy by the number of training images."""
    splits, changes = read("mnist"), CHANGES["mnist"]
    shape: dict[str, Any] = {"n_channels": 1, "n_classes": 10}
    common = {**shape, "n_layer": 2, "n_head": 4, "n_embd": 32, "image_size": 28, "class_token": False,
              "pooling": "mean"}  # fmt: skip
    variants = {
        "learned positions": {"positions": "learned"},
        "sine positions": {"positions": "sinusoidal"},
        "no positions": {"positions": "none"},
        "learned positions, neighbourhood": {"positions": "learned", "patterns": ["graph(1)"]},
    }
    makers: dict[str, Callable[[], nn.Module]] = {"ConvNet": conv_net_like(ViT(**common), **shape)}
    makers |= {f"ViT, {name}": lambda more=more: ViT(**common, **more) for name, more in variants.items()}

    def rows(name: str, known: Row) -> Iterator[Row]:
        train, make, row = splits["train"], makers[name], dict(known)
        if not row:
            kind = name.split(",")[0]
            rate, tried = tuned(make, kind, train.first(1000), splits["validation"], tune_steps, changes)
            row = {"parameters": parameters(make()), "rate": rate, "validation by rate": tried, "accuracy": {}}
        yield row
        for size, steps in sizes.items():
            if str(size) not in row["accuracy"]:
                model = fit(make, train.first(size), steps, row["rate"], changes)
                accuracy = scores(predictions(model, splits["test"]), splits["test"])["accuracy"]
                row = {**row, "accuracy": {**row["accuracy"], str(size): accuracy}}
                yield row

    return {name: lambda known, name=name: rows(name, known) for name in makers}


def measured(makers: dict[str, Maker], file: Path | None) -> list[Row]:
    """Every row, printed; what stands in a file is kept, and what is new is added to it (the last line counts)."""
    lines = file.read_text().splitlines() if file and file.is_file() else []
    found = {row.pop("kind"): row for row in map(json.loads, lines)}
    for kind, make in makers.items():
        for row in make(found.get(kind, {})):
            if file and row != found.get(kind):
                with open(file, "a") as rows:
                    rows.write(json.dumps({"kind": kind, **row}) + "\n")
            found[kind] = row
        print(json.dumps({"kind": kind, **found[kind]}), flush=True)
    return [{"kind": kind, **found[kind]} for kind in makers]


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Accuracy by size, a line a model, with its interval."""
    lines = []
    for row in rows:
        sizes, (values, halves) = [float(size) for size in row["accuracy"]], zip(*row["accuracy"].values(), strict=True)
        low, high = ([v + sign * h for v, h in zip(values, halves, strict=True)] for sign in (-1, 1))
        lines.append(Line(row["kind"], sizes, values, low, high, dots=True))
    axes = "training images", "% of 2,000 test images"
    title = "MNIST by the number of training images"
    save([Curves(title, lines, *axes, x_log=True, y_from_zero=False)], path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=sorted(CHANGES), default="emoji")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--tune-steps", type=int, default=150)
    parser.add_argument("--rows", type=Path, metavar="FILE", help="rows of an earlier run, a line each")
    parser.add_argument("--sizes", action="store_true")
    parser.add_argument("--most", type=int, default=7600, help="with --sizes: the largest number of training images")
    parser.add_argument("--plot", type=Path, help="with --sizes: an .svg")
    arguments = parser.parse_args()
    set_threads()
    if arguments.sizes:
        makers = by_size(arguments.tune_steps, {n: steps for n, steps in SIZES.items() if n <= arguments.most})
    else:
        makers = compare(arguments.data, arguments.steps, arguments.tune_steps)
    rows = measured(makers, arguments.rows)
    if arguments.sizes and arguments.plot:
        plot(rows, arguments.plot)


if __name__ == "__main__":
    main()
