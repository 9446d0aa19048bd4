"""C2PA: generated images signed with the user's own certificate, by the extra `raysynth[c2pa]`.

The manifest says what the XMP packet says (`storage.marks`), and is bound to the bytes: a change
shows. Who trusts the certificate is the reader's choice; without a time-stamp authority, which
would be asked for every image, a signature is believed as long as the certificate is valid.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from raysynth.errors import ConfigError
from raysynth.publish.form import suffix_of
from raysynth.publish.rows import Sign
from raysynth.storage.marks import CODES, EDITED, GENERATED
from raysynth.terminal import masked

TYPES = {"png": "image/png", "jpg": "image/jpeg", "webp": "image/webp"}
CURVES = {256: "es256", 384: "es384", 521: "es512"}
SETTINGS = {"builder": {"thumbnail": {"enabled": False}}}


def signer(certificate: str, key: str) -> Sign:
    """What signs images.

    Parameters
    ----------
    certificate, key : PEM files: the chain, the signer's own first, and its private key.

    Raises
    ------
    ConfigError
        The extra is not installed; a file cannot be read; the two cannot sign an image.
    """
    try:
        import c2pa
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
    except ImportError as error:
        raise ConfigError(
            f"--certificate: {error.name} is not installed; expected what signs. Fix: pip install "
            "'raysynth[c2pa]'"
        ) from None
    try:
        chain, secret = Path(certificate).read_bytes(), Path(key).read_bytes()
        algorithm = _algorithm(load_pem_private_key(secret, None))
        info = c2pa.C2paSignerInfo(algorithm, chain, secret, None)
        hand, context = c2pa.Signer.from_info(info), c2pa.Context(c2pa.Settings.from_dict(SETTINGS))
    except (OSError, TypeError, ValueError, c2pa.C2paError) as error:
        raise ConfigError(
            f"--certificate {masked(certificate)} --key {masked(key)}: cannot sign ({error}); "
            "expected PEM files, the chain with the signer's certificate first, and its key "
            "without a password. Fix: name those"
        ) from None

    def sign(data: bytes, edited: bool) -> bytes:
        kind, out = TYPES[suffix_of(data)], io.BytesIO()
        with c2pa.Builder(json.dumps(_claim(edited)), context) as claim:
            claim.sign(hand, kind, io.BytesIO(data), out)
        return out.getvalue()

    return sign


def _claim(edited: bool) -> dict[str, Any]:
    code = CODES + (EDITED if edited else GENERATED)
    action = {"action": "c2pa.created", "digitalSourceType": code}
    return {
        "claim_generator_info": [{"name": "raysynth"}],
        "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [action]}}],
    }


def _algorithm(key: Any) -> str:
    """C2PA's name of what a key signs by."""
    if hasattr(key, "curve"):
        return CURVES[key.curve.key_size]
    return "ps256" if hasattr(key, "private_numbers") else "ed25519"
