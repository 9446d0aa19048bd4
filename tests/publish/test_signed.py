"""C2PA: what is signed is read and found whole by c2pa's own reader, and a change shows."""

from __future__ import annotations

import datetime
import io
import json
from pathlib import Path

import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from PIL import Image

from raysynth.errors import ConfigError
from raysynth.publish.signed import signer
from raysynth.storage.marks import CODES, Maker, marked
from tests.publish.made import painted

c2pa = pytest.importorskip("c2pa")
DAY = datetime.timedelta(days=1)


def certificate(folder: Path) -> tuple[str, str]:
    """A chain of an authority of the test's own, and the key of its one signer."""
    root, own = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    chain = [_signed("signer", own, root, authority=False), _signed("root", root, root)]
    pem = b"".join(each.public_bytes(serialization.Encoding.PEM) for each in chain)
    (folder / "chain.pem").write_bytes(pem)
    plain = serialization.NoEncryption()
    kind = serialization.PrivateFormat.PKCS8
    secret = own.private_bytes(serialization.Encoding.PEM, kind, plain)
    (folder / "key.pem").write_bytes(secret)
    return str(folder / "chain.pem"), str(folder / "key.pem")


def _signed(name: str, key, by, authority: bool = True) -> x509.Certificate:
    def called(common: str) -> x509.Name:
        return x509.Name(
            [
                x509.NameAttribute(NameOID.COMMON_NAME, common),
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Tests"),
            ]
        )

    uses = dict.fromkeys(
        (
            *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment"),
            *("key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
        ),
        False,
    )
    uses |= {"key_cert_sign": True} if authority else {"digital_signature": True}
    now = datetime.datetime.now(datetime.UTC)
    found = (
        x509.CertificateBuilder()
        .subject_name(called(name))
        .issuer_name(called("root"))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - DAY)
        .not_valid_after(now + 30 * DAY)
        .add_extension(x509.BasicConstraints(authority, None), True)
        .add_extension(x509.KeyUsage(**uses), True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(by.public_key()), False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
    )
    if not authority:
        use = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])
        found = found.add_extension(use, False)
    return found.sign(by, hashes.SHA256())


def test_a_signature_holds_and_a_change_of_pixels_shows(tmp_path):
    sign = signer(*certificate(tmp_path))
    data = marked(painted(), Maker("owner/model").packet("0-0", 7))
    found = sign(data, False)
    assert len(found) - len(data) < 5_000
    before, after = (np.asarray(Image.open(io.BytesIO(each))) for each in (data, found))
    np.testing.assert_array_equal(before, after)
    told = json.loads(c2pa.Reader("image/png", io.BytesIO(found)).json())
    assert told["validation_state"] == "Valid"
    (manifest,) = told["manifests"].values()
    (action,) = manifest["assertions"][0]["data"]["actions"]
    assert action["digitalSourceType"] == f"{CODES}trainedAlgorithmicMedia"
    place = found.rfind(b"IDAT") + 20
    changed = found[:place] + bytes([found[place] ^ 1]) + found[place + 1 :]
    told = json.loads(c2pa.Reader("image/png", io.BytesIO(changed)).json())
    assert told["validation_state"] == "Invalid"


def test_what_cannot_sign_is_refused(tmp_path):
    chain, key = certificate(tmp_path)
    for given in ((chain, str(tmp_path / "none.pem")), (key, chain), (chain, "")):
        with pytest.raises(ConfigError, match="cannot sign"):
            signer(*given)
