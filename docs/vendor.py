"""Makes `static/vendor/` anew from the npm registry: `make vendor`.

`static/vendor/vendor.json` says which files of which packages are ours. To upgrade one, change its
`version` there and run this: the rest of the entry is written here. A package whose version has
not changed must be byte for byte what it was. A file that is `ours` was written for this folder.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import sys
import tarfile
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any, Final

REGISTRY: Final = "https://registry.npmjs.org"
FOLDER: Final = Path(__file__).resolve().parent.parent / "static" / "vendor"


class Refused(Exception):
    """What came is not what was asked for."""


def fetch(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=60) as response:
        body: bytes = response.read()
    return body


def integrity(tarball: bytes) -> str:
    """Its hash, as npm writes it."""
    return "sha512-" + base64.b64encode(hashlib.sha512(tarball).digest()).decode()


def vendor(package: dict[str, Any]) -> None:
    """Download a package, check it, write its files, and complete its entry in the manifest."""
    name, version = package["name"], package["version"]
    about = json.loads(fetch(f"{REGISTRY}/{urllib.parse.quote(name, safe='@')}/{version}"))
    said, url = about["dist"]["integrity"], about["dist"]["tarball"]
    if package.get("tarball") == url and package["integrity"] != said:
        raise Refused(f"{name} {version} is another one than before: {said}")
    tarball = fetch(url)
    if integrity(tarball) != said:
        raise Refused(f"{url} has the hash {integrity(tarball)}, the registry says {said}")
    package.update(license=about["license"], tarball=url, integrity=said)
    folder = FOLDER / package["folder"]
    with tarfile.open(fileobj=io.BytesIO(tarball)) as archive:
        for path, file in package["files"].items():
            target = folder / path
            if "from" in file:
                member = archive.extractfile(f"package/{file['from']}")
                if member is None:
                    raise Refused(f"{file['from']} of {name} {version} is no file")
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(member.read())
            file["sha256"] = hashlib.sha256(target.read_bytes()).hexdigest()
    print(f"{name} {version}")


def main() -> None:
    manifest = FOLDER / "vendor.json"
    known = json.loads(manifest.read_text(encoding="utf-8"))
    for package in known["packages"]:
        vendor(package)
    manifest.write_text(json.dumps(known, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    try:
        main()
    except Refused as error:
        sys.exit(str(error))
