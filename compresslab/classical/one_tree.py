"""What every classifier that is one tree does: predict, and go to arrays and back."""

from __future__ import annotations

from typing import Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from compresslab.classical.size import Arrays, label_arrays, labels_of, smallest
from compresslab.classical.tree_arrays import TreeArrays


class OneTreeClassifier(ClassifierMixin, BaseEstimator):
    """A classifier whose ``fit`` leaves a tree ``tree_`` (``TreeArrays``) and its ``classes_``; a subclass says how."""

    def predict(self, X: NDArray) -> NDArray:
        """The class of each point, (N,)."""
        check_is_fitted(self)
        return self.classes_[self.tree_.predict(validate_data(self, X, reset=False))]

    def to_arrays(self) -> Arrays:
        """The arrays of the tree, the number of classes and features, and the names of the classes."""
        check_is_fitted(self)
        shape = smallest(np.array([len(self.classes_), self.n_features_in_]))
        return self.tree_.to_arrays() | {"shape": shape} | label_arrays(self.classes_)

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Self:
        """A fitted classifier from what ``to_arrays`` returned."""
        model, (classes, features) = cls(), (int(side) for side in arrays["shape"])
        model.classes_, model.n_features_in_ = labels_of(arrays, classes), features
        model.tree_ = TreeArrays.from_arrays(arrays, classes)
        return model
