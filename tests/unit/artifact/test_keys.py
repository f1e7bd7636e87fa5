"""Keys: which are taken, that one key has one id, and that refusals never quote what they refuse."""

import base64

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from edgemodel.artifact import secretbox
from edgemodel.artifact.keys import PrivateKey, PublicKey
from edgemodel.errors import Stalled
from tests.unit.artifact.signed import VECTORS, key

SPKI = serialization.PublicFormat.SubjectPublicKeyInfo
PEM = serialization.Encoding.PEM
PLAIN = serialization.NoEncryption()
COSIGN = (VECTORS / "cosign-3.1.1/cosign.key").read_bytes()


def public_pem(private) -> str:
    return private.public_key().public_bytes(PEM, SPKI).decode()


@pytest.mark.parametrize(
    ("curve", "digests"),
    [
        (ec.SECP256R1(), {"sha256"}),
        (ec.SECP384R1(), {"sha384", "sha256"}),
        (ec.SECP521R1(), {"sha512", "sha256"}),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_each_curve_has_its_hash_and_the_one_older_clients_took(curve, digests):
    private = ec.generate_private_key(curve)
    public = PublicKey.from_pem(public_pem(private))
    for algorithm in (hashes.SHA256(), hashes.SHA384(), hashes.SHA512()):
        signature = private.sign(b"data", ec.ECDSA(algorithm))
        assert public.verify(signature, b"data") == (algorithm.name in digests)
        assert not public.verify(signature, b"Data")


def test_rsa_is_pkcs1_with_sha256_and_nothing_else():
    pem = (VECTORS / "edgemodel-0.1/rsa-3072/key.pem").read_bytes()
    private = serialization.load_pem_private_key(pem, b"vectors")
    public = PublicKey.from_pem(public_pem(private))
    assert public.verify(private.sign(b"data", padding.PKCS1v15(), hashes.SHA256()), b"data")
    assert not public.verify(private.sign(b"data", padding.PKCS1v15(), hashes.SHA512()), b"data")
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.DIGEST_LENGTH)
    assert not public.verify(private.sign(b"data", pss, hashes.SHA256()), b"data")


@pytest.mark.parametrize("signature", [b"", b"\0", b"x" * 72, b"\x30\x06\x02\x01\x00\x02\x01\x00"])
def test_rubbish_is_no_signature(signature):
    assert not key().public.verify(signature, b"data")


def test_one_key_has_one_id_however_its_pem_is_written():
    private = ec.generate_private_key(ec.SECP256R1())
    pem = public_pem(private)
    lines = pem.strip().split("\n")
    joined = "\n".join([lines[0], "".join(lines[1:-1]), lines[-1]])
    point = private.public_key().public_bytes(
        serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint
    )
    compressed = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
    ids = {PublicKey.from_pem(text).key_id for text in (pem, joined, f"# comment\n{pem}\n", pem.encode())}
    assert ids == {PublicKey.of(compressed).key_id}
    assert PublicKey.from_pem(joined) == PublicKey.from_pem(pem)


def test_hints_are_of_cosign_and_of_model_signing():
    cosign = PublicKey.from_pem((VECTORS / "cosign-3.1.1/cosign.pub").read_text())
    assert cosign.hint == "XqqC4OfyBHg3854sZXTJHgq83zcugMGA8HgS7uHlBSk="
    openssf = PublicKey.from_pem((VECTORS / "openssf-1.1.1/key.pub").read_text())
    assert "c76b894eed9f503098609ca1f179357f0723f0d9e2dd7fca24aa2daae3a581ab" in openssf.hints


def bad_publics() -> dict[str, tuple[str, str]]:
    good = public_pem(ec.generate_private_key(ec.SECP256R1()))
    private = key().export_plain().decode()
    return {
        "empty": ("", "holds no PEM block"),
        "text": ("hello", "holds no PEM block"),
        "private key": (private, "is a private key"),
        "private key after a public one": (good + private, "is a private key"),
        "encrypted private key": (COSIGN.decode(), "is a private key"),
        "two keys": (good + good, "holds PUBLIC KEY and PUBLIC KEY"),
        "certificate": ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----", "holds CERTIFICATE"),
        "damaged": (good.replace("M", "N", 1), "cannot be read"),
        "cut short": (good[:60], "cannot be read"),
        "too long": (good + "#" * 70_000, "characters long"),
        "ed25519": (public_pem(ed25519.Ed25519PrivateKey.generate()), "is Ed25519"),
        "another curve": (public_pem(ec.generate_private_key(ec.SECP256K1())), "on the curve secp256k1"),
        "short RSA": (public_pem(rsa.generate_private_key(65537, 1024)), "is RSA of 1024 bits"),
    }


@pytest.mark.parametrize(("text", "message"), bad_publics().values(), ids=bad_publics())
def test_public_keys_that_are_refused(text, message):
    with pytest.raises(Stalled, match=message) as caught:
        PublicKey.from_pem(text)
    assert caught.value.reason == "InvalidSpec"
    assert not any(line in str(caught.value) for line in text.split("\n") if len(line) > 40)


class TestPrivate:
    @pytest.mark.parametrize("export", ["export_encrypted", "export_cosign"])
    def test_every_written_form_is_read_back(self, export):
        assert PrivateKey.load(getattr(key(), export)(b"pw"), b"pw").public == key().public

    def test_the_plain_form_needs_no_password(self):
        for password in (None, b"ignored"):
            assert PrivateKey.load(key().export_plain(), password).public == key().public

    def test_sec1_and_pkcs1_are_read(self):
        for private in (ec.generate_private_key(ec.SECP384R1()), rsa.generate_private_key(65537, 2048)):
            pem = private.private_bytes(PEM, serialization.PrivateFormat.TraditionalOpenSSL, PLAIN)
            loaded = PrivateKey.load(pem)
            assert loaded.public.pem == public_pem(private)
            assert loaded.public.verify(loaded.sign(b"data"), b"data")

    @pytest.mark.parametrize(
        "pem", [COSIGN, COSIGN.replace(b"SIGSTORE", b"COSIGN")], ids=["sigstore", "older"]
    )
    def test_cosigns_file(self, pem):
        public = PublicKey.from_pem((VECTORS / "cosign-3.1.1/cosign.pub").read_text())
        assert PrivateKey.load(pem, b"x").public == public

    @pytest.mark.parametrize("export", ["export_encrypted", "export_cosign"])
    def test_a_wrong_or_missing_password_is_said_and_not_repeated(self, export):
        pem = getattr(key(), export)(b"right")
        with pytest.raises(Stalled, match="password is wrong") as caught:
            PrivateKey.load(pem, b"hunter2")
        assert "hunter2" not in str(caught.value)
        with pytest.raises(Stalled, match="no password was given"):
            PrivateKey.load(pem)
        with pytest.raises(Stalled, match="not empty"):
            getattr(key(), export)(b"")

    def test_others_are_refused(self):
        ed = ed25519.Ed25519PrivateKey.generate().private_bytes(PEM, serialization.PrivateFormat.PKCS8, PLAIN)
        for pem, message in ((ed, "is Ed25519"), (b"", "expected the PEM"), (b"x" * 70_000, "bytes long")):
            with pytest.raises(Stalled, match=message):
                PrivateKey.load(pem)

    def test_a_file_cannot_ask_for_more_memory_than_cosign_takes(self):
        greedy = _rewritten(COSIGN, b'"N":65536', b'"N":1073741824')
        with pytest.raises(Stalled, match="scrypt cost N=1073741824"):
            PrivateKey.load(greedy, b"x")

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            (b'"N":65536', b'"N":"65536"'), (b'"N":65536', b'"N":true'), (b'"N":65536', b'"N":1000'),
            (b'"scrypt"', b'"argon2"'), (b"nacl/secretbox", b"nacl/other"), (b'"kdf"', b'"kdg"'),
            (b'"nonce":"U', b'"nonce":"'),
        ],
    )  # fmt: skip
    def test_a_damaged_file_is_refused(self, old, new):
        with pytest.raises(Stalled, match="private key"):
            PrivateKey.load(_rewritten(COSIGN, old, new), b"x")

    def test_a_file_of_other_bytes_is_refused(self):
        for pem in (
            COSIGN[:200],
            COSIGN.replace(b"eyJ", b"!!!"),
            b"-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----",
        ):
            with pytest.raises(Stalled, match="private key"):
                PrivateKey.load(pem, b"x")

    def test_nothing_shows_the_key(self):
        assert repr(key()) == "PrivateKey()"


def _rewritten(pem: bytes, old: bytes, new: bytes) -> bytes:
    lines = pem.strip().split(b"\n")
    document = base64.b64decode(b"".join(lines[1:-1]))
    assert old in document
    return b"\n".join([lines[0], base64.b64encode(document.replace(old, new)), lines[-1]])


class TestSecretbox:
    """Against the vector in NaCl's own tests (tests/secretbox.c; "Cryptography in NaCl", § 10)."""

    KEY = bytes.fromhex("1b27556473e985d462cd51197a9a46c76009549eac6474f206c4ee0844f68389")
    NONCE = bytes.fromhex("69696ee955b62b73cd62bda875fc73d68219e0036b7a0b37")
    CONTENT = bytes.fromhex(
        "be075fc53c81f2d5cf141316ebeb0c7b5228c52a4c62cbd44b66849b64244ffce5ecbaaf33bd751a1ac728d45e6c6129"
        "6cdc3c01233561f41db66cce314adb310e3be8250c46f06dceea3a7fa1348057e2f6556ad6b1318a024a838f21af1fde"
        "048977eb48f59ffd4924ca1c60902e52f0a089bc76897040e082f937763848645e0705"
    )
    BOX = bytes.fromhex(
        "f3ffc7703f9400e52a7dfb4b3d3305d98e993b9f48681273c29650ba32fc76ce48332ea7164d96a4476fb8c531a1186a"
        "c0dfc17c98dce87b4da7f011ec48c97271d2c20f9b928fe2270d6fb863d51738b48eeee314a7cc8ab932164548e526ae"
        "90224368517acfeabd6bb3732bc0e9da99832b61ca01b6de56244a9e88d5f9b37973f622a43d14a6599b1f654cb45a74"
        "e355a5"
    )

    def test_the_vector_opens_and_seals(self):
        assert secretbox.open_box(self.BOX, self.NONCE, self.KEY) == self.CONTENT
        assert secretbox.seal_box(self.CONTENT, self.NONCE, self.KEY) == self.BOX

    @pytest.mark.parametrize("place", [0, 15, 16, 90, 146])
    def test_an_altered_box_stays_shut(self, place):
        box = bytearray(self.BOX)
        box[place] ^= 1
        with pytest.raises(InvalidSignature):
            secretbox.open_box(bytes(box), self.NONCE, self.KEY)

    def test_wrong_lengths(self):
        for nonce, secret in ((b"n", self.KEY), (self.NONCE, b"k")):
            with pytest.raises(ValueError, match="expected a key"):
                secretbox.open_box(self.BOX, nonce, secret)
        with pytest.raises(InvalidSignature):
            secretbox.open_box(b"short", self.NONCE, self.KEY)
