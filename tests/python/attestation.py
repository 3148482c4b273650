"""Checks an exported attestation with verifiers that are not ours, and that they refuse what was changed.

    attestation.py BUNDLE.json TRUST.json LOG.jsonl

securesystemslib verifies the DSSE envelope, in-toto-attestation parses the statement, proofbundle verifies inclusion and the signed tree
head (C2SP tlog-proof) and reads an evaluation as an eval-result, scitt-cose verifies inclusion and consistency by RFC 9162. Prints one
line of JSON with what was checked.
"""
import base64
import copy
import hashlib
import json
import pathlib
import subprocess
import sys
import tempfile

from google.protobuf import json_format
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.statement import Statement
from proofbundle.intoto import classify_eval_result_v02_predicate
from scitt_cose import merkle
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import SSlibKey

bundle_path, trust_path, log_path = map(pathlib.Path, sys.argv[1:])
bundle = json.loads(bundle_path.read_text())
trust = json.loads(base64.b64decode(json.loads(trust_path.read_text())["payload"]))
envelope = bundle["envelope"]
payload = base64.b64decode(envelope["payload"])


def canonical_keyid(public):
    text = '{"keytype":"ed25519","keyval":{"public":"%s"},"scheme":"ed25519"}' % public
    return hashlib.sha256(text.encode()).hexdigest()


def key(public):
    return SSlibKey(canonical_keyid(public), "ed25519", "ed25519", {"public": public})


def accepts(envelope):
    try:
        keys = [key(k["public"]) for k in trust["keys"] if k["role"] == "attester"]
        Envelope.from_dict(copy.deepcopy(envelope)).verify(keys, 1)
        return True
    except (VerificationError, ValueError, KeyError):
        return False


# The envelope: accepted as it is; refused with any byte of payload, type or signature changed.
assert accepts(envelope), "securesystemslib accepts the envelope"
changed = 0
for at in range(len(payload)):
    forged = bytearray(payload)
    forged[at] ^= 1
    assert not accepts({**envelope, "payload": base64.b64encode(forged).decode()}), f"byte {at} of the payload"
    changed += 1
signature = base64.b64decode(envelope["signatures"][0]["sig"])
for at in range(len(signature)):
    forged = bytearray(signature)
    forged[at] ^= 1
    forged_signature = {**envelope["signatures"][0], "sig": base64.b64encode(forged).decode()}
    assert not accepts({**envelope, "signatures": [forged_signature]}), f"byte {at} of the signature"
assert not accepts({**envelope, "payloadType": envelope["payloadType"] + "x"}), "another payload type"
# The trust root itself is an envelope, signed by its own root keys.
Envelope.from_dict(json.loads(trust_path.read_text())).verify([key(k) for k in trust["roots"]], trust["threshold"])

# The statement.
parsed = json_format.Parse(payload.decode(), statement_pb2.Statement())
Statement.copy_from_pb(parsed).validate()
statement = json.loads(payload)
evaluation = statement["predicateType"] == "https://hokus.ai/attestation/evaluation/v1"
if evaluation:
    fits, problems = classify_eval_result_v02_predicate(statement)
    assert fits, problems
    for field in ["evaluator", "evaluatedAt", "suite", "claims", "sampleSize", "model", "assuranceLevel"]:
        without = {name: value for name, value in statement["predicate"].items() if name != field}
        assert not classify_eval_result_v02_predicate({**statement, "predicate": without})[0], field

# The log: inclusion and signed tree head, the leaf being the payload byte for byte.
origin = trust["origin"]
log_key = bytes.fromhex([k["public"] for k in trust["keys"] if k["role"] == "log"][-1])
key_hash = hashlib.sha256(origin.encode() + b"\n\x01" + log_key).digest()[:4]
vkey = f"{origin}+{key_hash.hex()}+{base64.b64encode(bytes([1]) + log_key).decode()}"


def proofbundle(payload, proof):
    with tempfile.TemporaryDirectory() as folder:
        (folder := pathlib.Path(folder)).joinpath("statement.json").write_bytes(payload)
        folder.joinpath("statement.tlog-proof").write_text(proof)
        command = [pathlib.Path(sys.executable).with_name("proofbundle"), "verify-proof", "--payload-file", folder / "statement.json"]
        command += ["--log-vkey", vkey, "--expected-origin", origin, folder / "statement.tlog-proof"]
        return subprocess.run(command, capture_output=True, text=True)


proven = proofbundle(payload, bundle["proof"])
assert proven.returncode == 0, proven.stdout + proven.stderr
assert proofbundle(payload[:-1] + b" ", bundle["proof"]).returncode != 0, "another leaf"

head, checkpoint = bundle["proof"].split("\n\n", 1)
_, index_line, *path = head.split("\n")
index, path = int(index_line.removeprefix("index ")), [base64.b64decode(p).hex() for p in path]
_, size, root = checkpoint.split("\n")[:3]
size, root = int(size), base64.b64decode(root).hex()
leaf = payload.hex()
assert merkle.verify_inclusion(leaf, index, size, path, root)
assert not merkle.verify_inclusion(leaf, index, size, path + [root], root), "a hash too many"
assert not merkle.verify_inclusion(leaf + "00", index, size, path, root), "another leaf"

# The whole log leads to the same root; each earlier size is consistent with it.
entries = [json.loads(line) for line in log_path.read_text().splitlines()]
leaves = [base64.b64decode(e["envelope"]["payload"]).hex() for e in entries][:size]
assert merkle.merkle_root(leaves) == root, "the log's root"
if "consistency" in bundle:
    old = bundle["consistency"]["from"]
    shown = [base64.b64decode(p).hex() for p in bundle["consistency"]["path"]]
    assert merkle.verify_consistency(merkle.merkle_root(leaves[:old]), root, old, size, shown), "consistency"
    assert not merkle.verify_consistency(merkle.merkle_root(leaves[:old]), root, old, size, shown + [root])
print(json.dumps({"changed_bytes": changed, "leaves": size, "consistency": "consistency" in bundle, "eval_result": evaluation}))
