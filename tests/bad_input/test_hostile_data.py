"""Damaged files of molecules and records, and damaged SMILES and records as typed: read, or refused in one line.

Eighty mutations of each kind in a run; `GLASSFORMER_FUZZ=500 pytest tests/bad_input/test_hostile_data.py`: so many. A
number decides everything about its mutation.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from pathlib import Path

import pytest
from hostile_worker import hostile_bytes

from glassformer.data.examples import load_examples
from glassformer.data.readers import read_documents
from glassformer.data.records import load_records
from glassformer.errors import GlassformerError
from glassformer.processors.molecules import MoleculeProcessor, scaffold_of
from glassformer.processors.sets import SetProcessor
from glassformer.processors.tokenizers import TOKENIZERS

MUTATIONS = int(os.environ.get("GLASSFORMER_FUZZ", "80"))
SECONDS, LINE = 5.0, 400
MOLECULES = ["CC(=O)Oc1ccccc1C(=O)O", "C[C@H](N)C(=O)[O-].[Na+]", r"F/C=C\Cl", "c1cc[nH]c1", "C%12CC%12", "[13CH4]"]
SMILES_CSV = "smiles,label,split\n" + "".join(
    f"{smiles},{-1.5 * number},{split}\n"
    for split in ("train", "validation", "test")
    for number, smiles in enumerate(MOLECULES)
)
SMI = "".join(f"{smiles} name {number}\n" for number, smiles in enumerate(MOLECULES))
RECORD = '{"age": 3.5, "length": 12, "word": "w1", "flag": true}'
RECORDS_JSON = "".join(f'{{"age": {n}.5, "word": "w{n % 3}", "flag": true, "label": "c{n % 2}"}}\n' for n in range(24))
RECORDS_CSV = "age,word,zip,target\n" + "".join(f"{n}.5,w{n % 3},{1000 + n},{n}\n" for n in range(24))
HOSTILE = ["", '"', "\0", "nan", "-inf", "1e999", "9" * 5000, "\ud800", "\ufeff", "é" * 300, "C" * 6000, "[" * 3000,
           "(" * 3000, "{}", "null", "[1]", "1_000", "0x10", "-", ",,,,", "\r", "\n", "\t", "[Uuo]", "C1CC", "%99", "*",
           "[C:99999999999]", "[999C]", "a.png", "../../etc/passwd.png", "true", "C.C.C." * 400]  # fmt: skip


def hostile_text(text: str, draw: random.Random) -> str:
    """A piece between commas, quotes or line ends becomes something hostile; lines are doubled or left out."""
    marks = [i for i, character in enumerate(text) if character in ',":\n .(']
    for _ in range(draw.choice([1, 1, 2, 4])):
        if draw.random() < 0.2:  # only a letter is another
            place = draw.randrange(len(text))
            text = text[:place] + draw.choice("abc019=#%[]()") + text[place + 1 :]
            continue
        start, end = sorted(draw.choices(marks, k=2)) if draw.random() < 0.5 else [draw.choice(marks)] * 2
        end = next((mark for mark in marks if mark > start), start) if start == end else end
        text = text[: start + 1] + draw.choice(HOSTILE) + text[end:]
    return text


def read_molecules(path: Path) -> None:
    processor = MoleculeProcessor()
    for row in load_examples(path)["train"]:
        processor.arguments([processor.encode(row.source)])
        scaffold_of(row.source)


def read_smi(path: Path) -> None:
    texts = [piece.text for piece in read_documents(str(path))]
    tokenizer = TOKENIZERS["smiles"](texts)
    for text in texts:
        if "<unk>" not in (back := tokenizer.decode(tokenizer.encode(text))):
            assert back == text


def read_records(path: Path) -> None:
    records = load_records(str(path))
    processor = SetProcessor.fit([record.values for record in records["train"]])
    for rows in records.values():
        processor.arguments([processor.encode(row.values) for row in rows] or [])


def read_record(path: Path) -> None:
    records = [{"age": n, "length": n / 3, "word": f"w{n % 3}", "flag": "true"} for n in range(5)]
    processor = SetProcessor.fit(records)
    processor.decode(processor.encode(path.read_bytes().decode("utf-8", "surrogateescape")))


def read_smiles(path: Path) -> None:
    processor = MoleculeProcessor()
    processor.names(processor.encode(path.read_bytes().decode("utf-8", "surrogateescape")))


CASES = {
    "molecules.csv": (SMILES_CSV, read_molecules),
    "molecules.tsv": (SMILES_CSV.replace(",", "\t").replace("smiles", "text"), read_molecules),
    "molecules.smi": (SMI, read_smi),
    "records.csv": (RECORDS_CSV, read_records),
    "records.jsonl": (RECORDS_JSON, read_records),
    "record.txt": (RECORD, read_record),
    "smiles.txt": (MOLECULES[0] + "." + MOLECULES[1] + " ", read_smiles),
}


@pytest.mark.parametrize("name", CASES)
def test_damaged_data_is_read_or_refused_in_one_line(name, tmp_path, capfd):
    pytest.importorskip("rdkit", reason="needs the package rdkit")
    text, read = CASES[name]
    path, counts = tmp_path / name, Counter()
    for number in range(MUTATIONS):
        draw = random.Random(f"{name} {number}")
        damaged = hostile_text(text, draw).encode("utf-8", "surrogatepass") if number % 2 else None
        path.write_bytes(hostile_bytes(text.encode(), draw) if damaged is None else damaged)
        began = time.process_time()
        try:
            read(path)
            counts["read"] += 1
        except GlassformerError as refusal:
            line = str(refusal)
            assert "\n" not in line and len(line) < LINE, f"{name} {number}: {line[:500]}"
            counts["refused"] += 1
        except Exception as error:
            pytest.fail(f"{name} {number}: {type(error).__name__}: {str(error)[:300]}")
        assert time.process_time() - began < SECONDS, f"{name} {number}"
    assert min(counts["read"], counts["refused"]) >= MUTATIONS // 50, counts  # else the mutations are worth nothing
    assert capfd.readouterr().err == ""
