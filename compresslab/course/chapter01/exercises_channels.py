"""Exercises 1.9 to 1.13: channels, what they are tied to, what they are worth, and N:M patterns."""

from __future__ import annotations

from compresslab.course.chapter01 import alternatives as right
from compresslab.course.chapter01 import checks_channels as checks
from compresslab.course.chapter01 import mistakes_channels as wrong
from compresslab.course.chapter01 import references
from compresslab.course.exercise import Exercise, Mistake

EXERCISES = (
    Exercise(
        id="1.9", name="remove_channels", title="Take channels out for good", dots=4, minutes=20, track="core", points=4, workshop=True,
        misconception="pruning a filter changes one layer",
        reference=references.remove_channels, verify=checks.verify_remove_channels, alternatives=(right.remove_by_rebuilding,),
        mistakes=(
            Mistake("statistics kept", wrong.bn_statistics_kept,
                    "batch norm's running mean and variance are not parameters, but they have one number per channel, too"),
            Mistake("batch norm kept", wrong.bn_kept, "the batch norm between the layers still has all its channels"),
            Mistake("next layer kept", wrong.consumer_kept, "the next layer still waits for the channels that are gone: cut its input axis (1)"),
            Mistake("bias kept", wrong.bias_kept, "the convolution's bias has one number per filter: cut it as well"),
            Mistake("removed the kept", wrong.removed_the_kept, "you removed the channels in `keep` and kept the others"),
            Mistake("first columns", wrong.first_columns,
                    "the linear layer got its first columns: after flatten, channel c owns the columns c*pixels ... (c+1)*pixels - 1"),
            Mistake("one column per channel", wrong.one_column_per_channel,
                    "after flatten a channel is a block of columns, one per pixel: you kept one column per channel"),
            Mistake("pixels outside", wrong.pixels_outside,
                    "flatten puts the pixels of one channel side by side: the column is c * pixels + p, not p * channels + c"),
            Mistake("numbers not updated", wrong.numbers_not_updated,
                    "the tensors are right, but out_channels, num_features or the next layer's in_... still say the old numbers: counters and files read them")),
        hints=("Three layers change: the filters (axis 0), everything batch norm keeps per channel, the next layer's inputs (axis 1).",
               "conv.weight[keep], bn.weight/bias/running_mean/running_var[keep], following.weight[:, keep]. After flatten: "
               "columns = keep * pixels + (0 ... pixels - 1), with pixels = in_features / out_channels of the old convolution.",
               "conv, bn, following = copy.deepcopy((conv, bn, following))\nconv.weight, conv.out_channels = take(conv.weight, keep), len(keep)\n...\n"
               "if isinstance(following, nn.Conv2d):\n    following.weight, following.in_channels = take(following.weight, keep, axis=1), len(keep)\n"
               "else:\n    columns = (keep[:, None] * pixels + torch.arange(pixels)).flatten()\n    ...\nreturn conv, bn, following")),
    Exercise(
        id="1.10", name="silence_channels", title="Find the leak", dots=3, minutes=12, track="core",
        misconception="a zero filter is a removed channel",
        reference=references.silence_channels, verify=checks.verify_silence_channels, alternatives=(right.silence_by_masking,),
        mistakes=(
            Mistake("filter only", wrong.filter_only,
                    "a zero filter gives zero, but batch norm turns that zero into beta - gamma * mean / std: the channel still speaks"),
            Mistake("gamma only", wrong.gamma_only, "with gamma = 0 batch norm still adds beta, and relu(beta) stays alive: zero beta, too"),
            Mistake("beta only", wrong.beta_only, "with beta = 0 batch norm still subtracts its mean: -gamma * mean / std stays alive; zero gamma, too"),
            Mistake("leak is beta", wrong.leak_is_beta, "your leak is relu(beta): batch norm also subtracts its running mean from the zero"),
            Mistake("leak before relu", wrong.leak_before_relu, "your leak is the value before the relu: a negative one does not come through"),
            Mistake("divided by the variance", wrong.leak_by_variance, "batch norm divides by the square root of the variance"),
            Mistake("leak after silencing", wrong.leak_after_silencing,
                    "you measured the leak after you had stopped it: compute it from the batch norm as it was given"),
            Mistake("leak of all", wrong.leak_of_all, "the leak must have one number for each of `channels`, in that order")),
        hints=("Send a zero through batch norm in eval mode, with pencil and paper.",
               "bn(0) = beta - gamma * mean / sqrt(var + eps): a constant, whatever the image shows. Then the relu.",
               "conv, bn = copy.deepcopy((conv, bn))\nleak = F.relu(bn.bias - ...)[channels].detach()\n"
               "for parameter in (conv.weight, ..., ...):\n    parameter.data[channels] = 0\nreturn conv, bn, leak")),
    Exercise(
        id="1.11", name="taylor_importance", title="What a channel is worth", dots=2, minutes=10, track="stretch",
        misconception="a small channel is an unimportant channel",
        reference=references.taylor_importance, verify=checks.verify_taylor_importance, alternatives=(right.taylor_by_einsum,),
        mistakes=(
            Mistake("absolute inside", wrong.absolute_inside, "absolute values inside the sum: contributions that cancel in the loss must cancel here"),
            Mistake("squared inside", wrong.squared_inside, "you square every product: sum first, over images and pixels, then square"),
            Mistake("squared per image", wrong.squared_per_image, "you square per image: the loss is one number for the whole batch, sum over it first"),
            Mistake("not squared", wrong.not_squared, "the sign remains: a channel whose removal would lower the loss is not the least important one; square"),
            Mistake("gradient alone", wrong.gradient_alone, "that is the gradient alone: switching channel c off changes it by -y, so multiply by y"),
            Mistake("averaged", wrong.averaged, "you take a mean: the change of the loss is the sum (g holds the mean over the batch already)"),
            Mistake("per image", wrong.per_image, "you sum over channels and keep images: keep axis 1")),
        hints=("Switching channel c off changes y by -y in that channel. What does the gradient say about the loss?",
               "dL = -sum over n, h, w of g y, for each channel; I = dL^2.",
               "return (y * g).sum(dim=(...)) ** 2")),
    Exercise(
        id="1.12", name="coupled_layers", title="Who must go together", dots=3, minutes=15, track="core",
        misconception="every layer chooses its own channels",
        reference=references.coupled_layers, verify=checks.verify_coupled_layers, alternatives=(right.coupled_by_spreading,),
        mistakes=(
            Mistake("pairs only", wrong.pairs_only, "a + b and b + c tie a to c as well: groups that share a layer are one group"),
            Mistake("never merged", wrong.never_merged,
                    "an addition may join two groups that both exist already: merge them"),
            Mistake("loners lost", wrong.loners_lost, "a layer that no addition touches is a group of its own: it may be pruned, too"),
            Mistake("one big group", wrong.one_big_group, "you put all added layers into one group: only those that an addition connects belong together"),
            Mistake("nothing coupled", wrong.nothing_coupled, "you left every layer alone: an addition needs the same channels on both sides")),
        hints=("Start with every layer alone. Each addition joins the group of its left side with the group of its right side.",
               "For (a, b): find the set with a, find the set with b; if they are two sets, unite them and drop one.",
               "groups = [{layer} for layer in layers]\nfor a, b in adds:\n    first = next(group for group in groups if a in group)\n"
               "    second = ...\n    if first is not second:\n        ...\nreturn sorted(sorted(group) for group in groups)")),
    Exercise(
        id="1.13", name="nm_mask", title="N of every M", dots=2, minutes=8, track="stretch",
        misconception="hardware can use any zeros",
        reference=references.nm_mask, verify=checks.verify_nm_mask, alternatives=(right.nm_with_topk,),
        mistakes=(
            Mistake("along outputs", wrong.along_outputs,
                    "your blocks run down the outputs: the M neighbours are inputs of one output, side by side in a row"),
            Mistake("pruned n", wrong.pruned_n, "you pruned n of every m: n is the number that stays"),
            Mistake("kept the smallest", wrong.kept_smallest_of_block, "you kept the smallest of every block"),
            Mistake("forgot abs", wrong.signed_blocks, "you ranked signed values: -4 is larger than 1 here"),
            Mistake("best of all", wrong.best_of_all, "the right number over the whole weight, but not in every block of m"),
            Mistake("threshold with ties", wrong.block_threshold, "a threshold per block keeps more than n where weights are equal: choose indices"),
            Mistake("blocks across rows", wrong.blocks_across_rows,
                    "m does not divide the inputs, so your blocks run over the ends of rows: refuse that with a ValueError")),
        hints=("Reshape so that each block of m neighbours becomes a row, and choose n in every row.",
               "blocks = |W| reshaped to (-1, m); the n largest by argsort or topk; scatter True there; back to W's shape.",
               "if weight.shape[1] % m:\n    raise ValueError(...)\nblocks = weight.abs().reshape(-1, m)\nkept = blocks.argsort(dim=1, descending=True)[:, :n]\n"
               "return torch.zeros_like(blocks, dtype=torch.bool).scatter(...).view(weight.shape)")),
)
