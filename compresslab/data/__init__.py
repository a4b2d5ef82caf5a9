"""The data sets of the course: two drawn on the spot, one of scikit-learn's, four downloaded."""

from compresslab.data.cache import cache_folder
from compresslab.data.loaders import DATA_NAMES, fresh_data, load_data
from compresslab.data.split import Data, Split

__all__ = ["DATA_NAMES", "Data", "Split", "cache_folder", "fresh_data", "load_data"]
