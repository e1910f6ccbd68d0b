"""Certificates of an authority that only the tests trust."""

from __future__ import annotations

from pathlib import Path

import trustme


class Certificates:
    """One for `names`, in files: `authority` (whom to trust), `chain` and `key`."""

    def __init__(self, directory: Path, *names: str) -> None:
        self.authority = directory / "authority.pem"
        self.chain = directory / "chain.pem"
        self.key = directory / "key.pem"
        authority = trustme.CA()
        authority.cert_pem.write_to_path(self.authority)
        certificate = authority.issue_cert(*names)
        certificate.private_key_pem.write_to_path(self.key)
        for pem in certificate.cert_chain_pems:
            pem.write_to_path(self.chain, append=True)
