"""The matrices of a language model under names of their own, also those inside an LSTM.

`core.prepare` and the masks of `pruning` change `layer.weight`. An LSTM has no such attribute: it has
`weight_ih_l0`, `weight_hh_l0` and so on. Here a matrix goes by its layer and its name, `lstm.weight_hh_l0` or
`head.weight`; it can be masked, simulated in training, and stored, whatever layer it is in.

An `nn.LSTM` that is parametrized here computes with what its parametrizations return, in every call anew.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from compresslab.core.codes import DenseCode, WeightCode
from compresslab.core.errors import naming, where
from compresslab.core.geometry import geometry_of, plain_class
from compresslab.core.layers import CODED_LAYERS, code_name
from compresslab.core.modules import apply_mask_, bake, get_mask, map_layers, register_
from compresslab.core.prepare import Simulated

LAYERS = (nn.Linear, nn.Embedding, nn.LSTM)


def named_matrices(model: nn.Module) -> dict[str, Tensor]:
    """Every weight matrix of the plain Linear, Embedding and LSTM layers, as the network sees it.

    Args:
        model: any network; parametrizations, such as masks, have acted on what is returned.

    Returns:
        "layer.name" -> the matrix, in the model's order.

    Example:
        >>> model = nn.Sequential(nn.Embedding(5, 2), nn.LSTM(2, 3, proj_size=1))
        >>> {name: tuple(matrix.shape) for name, matrix in named_matrices(model).items()}
        {'0.weight': (5, 2), '1.weight_ih_l0': (12, 2), '1.weight_hh_l0': (12, 1), '1.weight_hr_l0': (1, 3)}
    """
    return {name: getattr(layer, key) for name, (layer, key) in _places(model).items()}


def recurrent_matrices(model: nn.Module) -> list[str]:
    """The names of all matrices of LSTMs, as in `named_matrices`.

    Example:
        >>> recurrent_matrices(nn.Sequential(nn.Embedding(5, 2), nn.LSTM(2, 3)))
        ['1.weight_ih_l0', '1.weight_hh_l0']
    """
    return [name for name, (layer, _) in _places(model).items() if isinstance(layer, nn.LSTM)]


def held_masks(model: nn.Module) -> dict[str, Tensor]:
    """The masks that a model holds: "layer.name" -> bool mask. Matrices without one are left out."""
    masks = {name: get_mask(layer, key) for name, (layer, key) in _places(model).items()}
    return {name: mask for name, mask in masks.items() if mask is not None}


def mask_matrices_(model: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Hold the masked entries of named matrices at zero, in place; what is masked already stays masked.

    Args:
        model: plain or masked.
        masks: "layer.name" -> bool mask of the matrix's shape; True keeps.

    Raises:
        ValueError: an unknown name, or a mask of another shape; nothing is changed then.
    """
    places = _chosen(model, masks)
    for name, mask in masks.items():
        layer, key = places[name]
        got, want = tuple(mask.shape), tuple(getattr(layer, key).shape)
        if got != want:
            raise ValueError(f"mask must have the matrix's shape {want}, got {got} in layer '{name}'")
    for name, mask in masks.items():
        layer, key = places[name]
        before = get_mask(layer, key)
        apply_mask_(layer, mask if before is None else mask & before, key)
        _follow_weights_(layer)


def mask_matrices(model: nn.Module, masks: Mapping[str, Tensor]) -> nn.Module:
    """Copy of a model with masked matrices; see :func:`mask_matrices_`.

    Example:
        >>> masked = mask_matrices(nn.LSTM(1, 1), {"weight_hh_l0": torch.tensor([[True], [False], [True], [False]])})
        >>> [weight != 0 for weight in masked.weight_hh_l0.flatten().tolist()]
        [True, False, True, False]
    """
    model = copy.deepcopy(model)
    mask_matrices_(model, masks)
    return model


def simulate_matrices(model: nn.Module, make: Mapping[str, Callable[[Tensor], Simulated]]) -> nn.Module:
    """Copy of a model whose named matrices are simulated; train it, then :func:`store_matrices`.

    Args:
        model: any network; masks stay, and act before the simulation.
        make: "layer.name" -> function from the matrix (detached) to its `Simulated`.

    Raises:
        TypeError: a function returns no `Simulated`.
        ValueError: an unknown name, a matrix that is simulated already, or one that `make` refuses; the message
            names the matrix.
    """
    _chosen(model, make)
    model = copy.deepcopy(model)
    for name, (layer, key) in _chosen(model, make).items():
        if _simulation(layer, key) is not None:
            raise ValueError(f"the weight is simulated already{where(name)}")
        with naming(name):
            simulated = make[name](getattr(layer, key).detach())
            if not isinstance(simulated, Simulated):
                raise TypeError(f"make must return a Simulated, got {type(simulated).__name__}")
        register_(layer, key, simulated)
        _follow_weights_(layer)
    return model


@torch.no_grad()
def store_matrices(model: nn.Module) -> nn.Module:
    """Copy of a model in which every simulated matrix is stored as its code.

    The other matrices of an LSTM with a simulated one are stored as they are, one float each.

    Raises:
        ValueError: no matrix is simulated, or one cannot be stored; the message names it.
    """
    codes: dict[str, WeightCode] = {}
    for name, (layer, key) in _places(model).items():
        simulation = _simulation(layer, key)
        if simulation is not None:
            latent = layer.parametrizations[key].original
            for earlier in list(layer.parametrizations[key])[:-1]:
                latent = earlier(latent)
            with naming(name):
                codes[name] = simulation.to_code(latent)
    if not codes:
        raise ValueError("no matrix of this model is simulated; simulate_matrices comes first")

    def replace(name: str, layer: nn.Module) -> nn.Module | None:
        keys = {key: f"{name}.{key}".lstrip(".") for key in layer._parameters if "weight" in key}
        if not codes.keys() & keys.values():
            return None
        parts = {key: value for key, value in layer._parameters.items() if key not in keys and value is not None}
        for key, path in keys.items():
            parts[code_name(key)] = codes[path] if path in codes else DenseCode.from_dense(getattr(layer, key))
        return CODED_LAYERS[plain_class(layer)](geometry_of(layer), **parts).train(layer.training)

    return map_layers(bake(model), LAYERS, replace)


def _places(model: nn.Module) -> dict[str, tuple[nn.Module, str]]:
    """ "layer.name" -> (layer, name) of each matrix."""
    places = {}
    for path, layer in model.named_modules():
        if isinstance(layer, LAYERS):
            held = [*layer._parameters, *getattr(layer, "parametrizations", ())]
            keys = getattr(layer, "_flat_weights_names", ["weight"])  # torch's own order of an LSTM's weights
            places |= {f"{path}.{key}".lstrip("."): (layer, key) for key in keys if "weight" in key and key in held}
    return places


def _chosen(model: nn.Module, names: Mapping[str, object]) -> dict[str, tuple[nn.Module, str]]:
    """The places of the given names, in the model's order."""
    places = _places(model)
    for name in names:
        if name not in places:
            raise ValueError(f"there is no matrix {name!r}; the matrices are {', '.join(places) or 'none'}")
    return {name: place for name, place in places.items() if name in names}


def _simulation(layer: nn.Module, key: str) -> Simulated | None:
    """What simulates `layer.key`: the last of its parametrizations, if it is a `Simulated`."""
    if not parametrize.is_parametrized(layer, key):
        return None
    last = layer.parametrizations[key][-1]
    return last if isinstance(last, Simulated) else None


def _follow_weights_(layer: nn.Module) -> None:
    """Let a parametrized LSTM compute its list of weights in every call and keep none, in place.

    torch keeps the list of the last call, and with it the graph of a training step; a module that holds a graph cannot
    be copied. What is set here is set on the class that torch generated for this layer, not on `nn.LSTM`.
    """
    if isinstance(layer, nn.LSTM):
        type(layer)._flat_weights = property(_computed_weights, _ignore)
        type(layer)._update_flat_weights = _ignore


def _computed_weights(layer: nn.LSTM) -> list[Tensor]:
    return [getattr(layer, name) for name in layer._flat_weights_names]


def _ignore(layer: nn.LSTM, value: object = None) -> None:
    """What torch wants to keep, or to bring up to date, is computed anew in any case."""
