"""Parameter sharing: one stored number, used in many places."""

from compresslab.sharing.basis import Basis, BasisCode, share_basis, spectrum
from compresslab.sharing.circulant import (
    BlockCirculantCode,
    CirculantLinear,
    circulant,
    circulant_product,
    nearest_circulant,
)
from compresslab.sharing.clusters import ClusterCode
from compresslab.sharing.cross_layer import (
    CyclicStack,
    FactorizedEmbedding,
    share_layers,
    tie_embedding,
    unique_parameters,
    virtual_parameters,
)
from compresslab.sharing.deep_kmeans import (
    DeepKMeans,
    clustering_penalty,
    encode_rows,
    filter_rows,
    hard_indicator,
    relaxation_bound,
    relaxed_indicator,
)
from compresslab.sharing.displacement import (
    DisplacementCode,
    displacement,
    displacement_product,
    f_circulant,
    f_circulant_product,
)
from compresslab.sharing.fastfood import FastfoodLinear
from compresslab.sharing.hashing import HashedCode, bucket_loads, collisions, hash_indices
from compresslab.sharing.product import LookupLinear, ProductCode, response_codebooks
from compresslab.sharing.soft_sharing import MixturePrior, SoftSharing, soft_sharing_loss
from compresslab.sharing.tables import TableCode
from compresslab.sharing.toeplitz import ToeplitzCode, nearest_toeplitz, toeplitz, toeplitz_product
from compresslab.sharing.vector_kmeans import kmeans, nearest

__all__ = [
    "Basis", "BasisCode", "BlockCirculantCode", "CirculantLinear", "ClusterCode", "CyclicStack", "DeepKMeans",
    "DisplacementCode", "FactorizedEmbedding", "FastfoodLinear", "HashedCode", "LookupLinear", "MixturePrior",
    "ProductCode", "SoftSharing", "TableCode", "ToeplitzCode", "bucket_loads", "circulant",
    "circulant_product", "clustering_penalty", "collisions", "displacement", "displacement_product",
    "encode_rows", "f_circulant", "f_circulant_product", "filter_rows", "hard_indicator", "hash_indices",
    "kmeans", "nearest", "nearest_circulant", "nearest_toeplitz", "relaxation_bound", "relaxed_indicator",
    "response_codebooks", "share_basis", "share_layers", "soft_sharing_loss", "spectrum", "tie_embedding",
    "toeplitz", "toeplitz_product", "unique_parameters", "virtual_parameters",
]  # fmt: skip
