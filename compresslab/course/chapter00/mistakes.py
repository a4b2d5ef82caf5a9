"""Chapter 00: wrong answers to 0.1 to 0.6 that people really give; the table holds what to say about them."""

from __future__ import annotations

import numpy as np
import torch

from compresslab.course.chapter00.references import pack_bits

# -- 0.1 compression_ratio ---------------------------------------------------------------------------


def ratio_upside_down(dense_bits, compressed_bits):
    return compressed_bits.sum() / dense_bits.sum()


def ratio_as_saving(dense_bits, compressed_bits):
    return 1 - compressed_bits.sum() / dense_bits.sum()


def ratio_as_percent(dense_bits, compressed_bits):
    return 100 * (1 - compressed_bits.sum() / dense_bits.sum())


def ratio_mean_of_layers(dense_bits, compressed_bits):
    return (dense_bits / compressed_bits).mean()


def ratio_product_of_layers(dense_bits, compressed_bits):
    return (dense_bits / compressed_bits).prod()


# -- 0.2 paired_difference ---------------------------------------------------------------------------


def _with_margin(difference, margin):
    return difference, difference - margin, difference + margin


def _paired(predictions_a, predictions_b, labels):
    return (predictions_a == labels).double() - (predictions_b == labels).double()


def paired_as_independent(predictions_a, predictions_b, labels):
    a, b = ((p == labels).double().mean() for p in (predictions_a, predictions_b))
    variance = (a * (1 - a) + b * (1 - b)) / len(labels)
    return _with_margin(a - b, 1.96 * variance.sqrt())


def paired_not_divided(predictions_a, predictions_b, labels):
    d = _paired(predictions_a, predictions_b, labels)
    return _with_margin(d.mean(), 1.96 * d.std())


def paired_divided_by_n(predictions_a, predictions_b, labels):
    d = _paired(predictions_a, predictions_b, labels)
    return _with_margin(d.mean(), 1.96 * d.std() / len(d))


def paired_one_sigma(predictions_a, predictions_b, labels):
    d = _paired(predictions_a, predictions_b, labels)
    return _with_margin(d.mean(), d.std() / len(d) ** 0.5)


def paired_reversed(predictions_a, predictions_b, labels):
    d = _paired(predictions_b, predictions_a, labels)
    return _with_margin(d.mean(), 1.96 * d.std() / len(d) ** 0.5)


def paired_disagreement(predictions_a, predictions_b, labels):
    d = (predictions_a != predictions_b).double()
    return _with_margin(d.mean(), 1.96 * d.std() / len(d) ** 0.5)


def paired_in_percent(predictions_a, predictions_b, labels):
    d = 100 * _paired(predictions_a, predictions_b, labels)
    return _with_margin(d.mean(), 1.96 * d.std() / len(d) ** 0.5)


# -- 0.3 evaluate ------------------------------------------------------------------------------------


def evaluate_in_train_mode(model, batches):
    correct = total = 0
    with torch.no_grad():
        for x, y in batches:
            correct += (model(x).argmax(1) == y).sum().item()
            total += len(y)
    return correct / total


def evaluate_mean_of_batches(model, batches):
    was_training = model.training
    model.eval()
    with torch.no_grad():
        scores = [(model(x).argmax(1) == y).double().mean().item() for x, y in batches]
    model.train(was_training)
    return sum(scores) / len(scores)


def evaluate_stays_in_eval(model, batches):
    model.eval()
    return evaluate_in_train_mode(model, batches)


def evaluate_ends_in_train(model, batches):
    model.eval()
    result = evaluate_in_train_mode(model, batches)
    model.train()
    return result


def evaluate_forces_train(model, batches):
    was_training = model.training
    model.train()
    result = evaluate_in_train_mode(model, batches)
    model.train(was_training)
    return result


# -- 0.4 storage_bits --------------------------------------------------------------------------------


def storage_all_float32(state):
    return 32 * sum(tensor.numel() for tensor in state.values())


def storage_names_counted(state):
    return 8 * sum(tensor.numel() * tensor.element_size() for tensor in state.values())


def storage_by_first_address(state):
    sizes = {tensor.data_ptr(): tensor.numel() * tensor.element_size() for tensor in state.values()}
    return 8 * sum(sizes.values())


def storage_first_view_only(state):
    sizes = {}
    for tensor in state.values():
        sizes.setdefault(tensor.untyped_storage().data_ptr(), tensor.numel() * tensor.element_size())
    return 8 * sum(sizes.values())


def storage_in_bytes(state):
    storages = [tensor.untyped_storage() for tensor in state.values()]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def storage_floats_only(state):
    storages = [tensor.untyped_storage() for tensor in state.values() if tensor.is_floating_point()]
    return 8 * sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def storage_without_zeros(state):
    return 32 * sum(int(tensor.count_nonzero()) for tensor in state.values())


# -- 0.5 pack_bits -----------------------------------------------------------------------------------


def _bytes_of(stream):
    stream = torch.nn.functional.pad(stream, (0, -len(stream) % 8)).view(-1, 8)
    return (stream << torch.arange(8)).sum(1).to(torch.uint8)


def pack_byte_per_code(codes, bits):
    return codes.flatten().to(torch.uint8)


def pack_high_bit_of_code_first(codes, bits):
    planes = (codes.reshape(-1, 1).long() >> torch.arange(bits).flip(0)) & 1
    return _bytes_of(planes.flatten())


def pack_numpy_default(codes, bits):
    planes = (codes.reshape(-1, 1).long() >> torch.arange(bits)) & 1
    return torch.from_numpy(np.packbits(planes.flatten().numpy().astype(np.uint8)))


def pack_all_big_endian(codes, bits):
    planes = (codes.reshape(-1, 1).long() >> torch.arange(bits).flip(0)) & 1
    return torch.from_numpy(np.packbits(planes.flatten().numpy().astype(np.uint8)))


def pack_drops_the_tail(codes, bits):
    planes = ((codes.reshape(-1, 1).long() >> torch.arange(bits)) & 1).flatten()
    return _bytes_of(planes[: len(planes) // 8 * 8])


def pack_without_carry(codes, bits):
    packed = [0] * -(-codes.numel() * bits // 8)
    for i, code in enumerate(codes.flatten().tolist()):
        byte, offset = divmod(i * bits, 8)
        packed[byte] |= (code << offset) & 255
    return torch.tensor(packed, dtype=torch.uint8)


def pack_whole_codes_per_byte(codes, bits):
    per_byte = 8 // bits
    codes = torch.nn.functional.pad(codes.flatten().long(), (0, -codes.numel() % per_byte)).view(-1, per_byte)
    return (codes << (bits * torch.arange(per_byte))).sum(1).to(torch.uint8)


def pack_bit_planes(codes, bits):
    planes = (codes.reshape(-1, 1).long() >> torch.arange(bits)) & 1
    return _bytes_of(planes.T.flatten())


# -- 0.6 sparse_code ---------------------------------------------------------------------------------


def sparse_bool_mask(weight):
    keep = weight.flatten() != 0
    return {"mask": keep, "values": weight.flatten()[keep]}


def sparse_indices(weight):
    indices = weight.flatten().nonzero().flatten()
    return {"mask": indices, "values": weight.flatten()[indices]}


def sparse_keeps_zeros(weight):
    return {"mask": pack_bits(weight.flatten() != 0, 1), "values": weight.flatten()}


def sparse_positive_only(weight):
    keep = weight.flatten() > 0
    return {"mask": pack_bits(keep, 1), "values": weight.flatten()[keep]}


def sparse_marks_the_zeros(weight):
    keep = weight.flatten() != 0
    return {"mask": pack_bits(~keep, 1), "values": weight.flatten()[keep]}


def sparse_sorted_values(weight):
    keep = weight.flatten() != 0
    return {"mask": pack_bits(keep, 1), "values": weight.flatten()[keep].sort().values}


def sparse_as_a_view(weight):
    keep = weight.flatten() != 0
    order = keep.to(torch.uint8).argsort(descending=True, stable=True)
    return {"mask": pack_bits(keep, 1), "values": weight.flatten()[order][: int(keep.sum())]}
