"""Molecules that a model of SMILES writes: how many are valid, different and new, beside a table of five characters.

    python benchmarks/smiles.py runs/moses-1 [--samples 2000] [--temperature 1] [--picture FILE.svg]

valid    RDKit reads it: rings close, brackets match, no atom has more bonds than it can (95 % interval of Wilson)
unique   of the valid ones, those that differ as canonical SMILES (the first 1,000, and all)
novel    of the unique ones, those that are not in the whole training set of MOSES (1,584,663 molecules)

As in MOSES (Polykovskiy et al. 2020, https://doi.org/10.3389/fphar.2020.565644, section "Metrics"), which samples at
temperature 1. The table counts which character follows the last four, over the molecules that the model may learn from.
Prints JSON, one line as each side is done.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import _one_line  # noqa: F401  (first: it reports what is missing)
import numpy as np
from rdkit import Chem, rdBase
from scipy.stats import binomtest

import glassformer as gf
from glassformer.data import CORPORA
from glassformer.generation import generate

BATCH = 100
CONTEXT = 4  # characters that the table looks at
LONGEST = 120  # characters of a molecule that the table writes, and tokens of the model's


def by_model(run: str, n: int, temperature: float) -> list[str]:
    """SMILES that a model writes until its end-of-text token; one without an end is cut, and mostly no molecule."""
    model, tokenizer = gf.load(run)
    found: list[str] = []
    while len(found) < n:
        settings = {"max_new_tokens": LONGEST, "temperature": temperature, "seed": len(found)}
        done = generate(model, tokenizer, "", samples=min(BATCH, n - len(found)), **settings)
        found += [each.text for each in done]
    return found


def by_table(molecules: Iterable[str], n: int) -> list[str]:
    """SMILES drawn from counts of five characters: what follows the last four; "" ends a molecule."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for smiles in molecules:
        padded = "^" * CONTEXT + smiles
        for place in range(len(smiles)):
            counts[padded[place : place + CONTEXT]][padded[place + CONTEXT]] += 1
        counts[padded[-CONTEXT:]][""] += 1
    tables = {seen: (list(c), np.cumsum(list(c.values())) / c.total()) for seen, c in counts.items()}
    random = np.random.default_rng(0)
    return ["".join(_draw(tables, random)) for _ in range(n)]


def _draw(tables: dict[str, tuple[list[str], np.ndarray]], random: np.random.Generator) -> Iterator[str]:
    seen = "^" * CONTEXT
    for u in random.random(LONGEST):
        characters, shares = tables[seen]
        if not (character := characters[int(np.searchsorted(shares, u, side="right"))]):
            return
        seen = seen[1:] + character
        yield character


def canonical(smiles: str) -> str | None:
    """RDKit's own SMILES of a molecule; None: it is none."""
    with rdBase.BlockLogs():
        molecule = Chem.MolFromSmiles(smiles) if smiles else None
        return Chem.MolToSmiles(molecule) if molecule is not None else None


def share(k: int, n: int) -> list[float]:
    """The share in percent, and the ends of its 95 % interval."""
    if not n:
        return [float("nan")] * 3
    ends = binomtest(k, n).proportion_ci(method="wilson")
    return [round(100 * value, 2) for value in (k / n, ends.low, ends.high)]


def measured(written: list[str], known: set[str]) -> tuple[dict[str, object], list[str]]:
    """(shares in percent, valid and new molecules)."""
    valid = [smiles for smiles in map(canonical, written) if smiles is not None]
    unique = list(dict.fromkeys(valid))
    novel = [smiles for smiles in unique if smiles not in known]
    first = valid[:1000]
    report = {
        "molecules": len(written),
        "valid": share(len(valid), len(written)),
        f"unique of the first {len(first):,} valid": share(len(set(first)), len(first)),
        "unique of all valid": share(len(unique), len(valid)),
        "novel of the unique": share(len(novel), len(unique)),
        "characters": round(float(np.mean([len(smiles) for smiles in written])), 1),
    }
    return report, novel


def draw(molecules: list[str], path: Path) -> None:
    """Eight molecules in two rows, as SVG."""
    from rdkit.Chem import Draw
    from rdkit.Chem.Draw import rdMolDraw2D

    options = rdMolDraw2D.MolDrawOptions()
    options.bondLineWidth = 1
    options.clearBackground = False
    drawn = Draw.MolsToGridImage(
        [Chem.MolFromSmiles(smiles) for smiles in molecules[:8]], molsPerRow=4, subImgSize=(190, 150), useSVG=True,
        drawOptions=options,
    )  # fmt: skip
    path.write_text(str(getattr(drawn, "data", drawn)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="a run or model folder")
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--picture", type=Path, help="draw eight of the new molecules into this SVG file")
    parser.add_argument("--learn", type=int, default=200_000, help="molecules that the table counts")
    given = parser.parse_args()
    molecules = CORPORA["moses"].texts(quiet=True)
    known = set(molecules)  # they are canonical already, but for the version of RDKit
    began = time.time()
    report, novel = measured(by_model(given.run, given.samples, given.temperature), known)
    seconds = round(time.time() - began)
    print(json.dumps({"side": given.run, "temperature": given.temperature, **report, "seconds": seconds}), flush=True)
    if given.picture:
        draw(novel, given.picture)
    report, _ = measured(by_table(islice(molecules, given.learn), given.samples), known)
    print(json.dumps({"side": "five characters", "learned from": given.learn, **report}), flush=True)
    with_rdkit = [canonical(smiles) == smiles for smiles in molecules[:: len(molecules) // 2000]]
    print(json.dumps({"training molecules that RDKit writes alike": share(sum(with_rdkit), len(with_rdkit))}))


if __name__ == "__main__":
    main()
