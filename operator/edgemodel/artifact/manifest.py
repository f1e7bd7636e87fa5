"""Manifests: reading, writing, and what they say.

The names that other modules import; each lives in a file of its own: ``oci_manifest`` reads the bytes,
``model_files`` finds the files, ``release`` the release facts, ``manifest_build`` writes.
All of it is pure; everything that is read is untrusted until ``trust`` has judged it.
"""

from edgemodel.artifact.manifest_build import (
    EMPTY_CONFIG,
    EMPTY_DESCRIPTOR,
    SIGN_PREDICATE,
    build_config,
    build_index,
    build_manifest,
    build_referrer,
    build_signature_manifest,
)
from edgemodel.artifact.model_files import (
    MAX_SAMPLES_BYTES,
    SAMPLES_PATH,
    ModelFile,
    Packing,
    Paths,
    check_path,
    model_files,
)
from edgemodel.artifact.oci_manifest import Descriptor, Index, Manifest
from edgemodel.artifact.release import Release, format_time, parse_time, release

__all__ = [
    "EMPTY_CONFIG",
    "EMPTY_DESCRIPTOR",
    "MAX_SAMPLES_BYTES",
    "SAMPLES_PATH",
    "SIGN_PREDICATE",
    "Descriptor",
    "Index",
    "Manifest",
    "ModelFile",
    "Packing",
    "Paths",
    "Release",
    "build_config",
    "build_index",
    "build_manifest",
    "build_referrer",
    "build_signature_manifest",
    "check_path",
    "format_time",
    "model_files",
    "parse_time",
    "release",
]
