"""Media types and annotation names of everything the artifact library writes or reads: constants, nothing else.

Sources: OCI image spec 1.1; CNCF ModelPack (modelpack/model-spec, docs/spec.md and docs/annotations.md);
sigstore/cosign (specs/SIGNATURE_SPEC.md, pkg/types); KitOps (pkg/lib/constants/mediaType.go).
"""

# OCI
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_EMPTY = "application/vnd.oci.empty.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1"
OCI_LAYER_NONDISTRIBUTABLE = "application/vnd.oci.image.layer.nondistributable.v1"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff"
MANIFESTS = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
INDEXES = frozenset({OCI_INDEX, DOCKER_LIST})

# Models
MODEL_ARTIFACT = "application/vnd.cncf.model.manifest.v1+json"
MODEL_CONFIG = "application/vnd.cncf.model.config.v1+json"
MODEL_LAYER = "application/vnd.cncf.model."
MODEL_WEIGHT = "application/vnd.cncf.model.weight.v1.raw"
MODEL_WEIGHT_CONFIG = "application/vnd.cncf.model.weight.config.v1.raw"
MODEL_DOC = "application/vnd.cncf.model.doc.v1.raw"
SAMPLES = "application/vnd.edgemodel.samples.v1+tar"
KITOPS_CONFIG = "application/vnd.kitops.modelkit.config.v1+json"
KITOPS_LAYER = "application/vnd.kitops.modelkit."

# Signatures
BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
BUNDLE_PREFIX = "application/vnd.dev.sigstore.bundle"
SIMPLE_SIGNING = "application/vnd.dev.cosign.simplesigning.v1+json"
IN_TOTO = "application/vnd.in-toto+json"

# Deltas
DELTA_MANIFEST = "application/vnd.edgemodel.delta.v1+json"
DELTA_LAYER = "application/vnd.edgemodel.delta.layer.v1"

# Annotations
DELTA_FROM = "io.edgemodel.delta.from"
DELTA_TO = "io.edgemodel.delta.to"
DELTA_CODEC = "io.edgemodel.delta.codec"
TITLE = "org.opencontainers.image.title"
CREATED = "org.opencontainers.image.created"
VERSION = "org.opencontainers.image.version"
FILEPATH = "org.cncf.model.filepath"
ORAS_UNPACK = "io.deis.oras.content.unpack"
COSIGN_SIGNATURE = "dev.cosignproject.cosign/signature"
BUNDLE_CONTENT = "dev.sigstore.bundle.content"
BUNDLE_PREDICATE = "dev.sigstore.bundle.predicateType"
RELEASE_NAME = "io.edgemodel.name"
RELEASE_VERSION = "io.edgemodel.version"
RELEASE_SEQUENCE = "io.edgemodel.sequence"
RELEASE_EXPIRES = "io.edgemodel.expires"
