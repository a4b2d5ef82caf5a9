"""Exercises 11.7 and 11.8: every layer on the roofline, and the gain of a change to a whole network."""

from __future__ import annotations

from compresslab.course.chapter11 import alternatives_limits as right
from compresslab.course.chapter11 import checks_limits as checks
from compresslab.course.chapter11 import mistakes_limits as wrong
from compresslab.course.chapter11 import references_limits as references
from compresslab.course.exercise import Exercise, Mistake

EXERCISES = (
    Exercise(
        id="11.7", name="on_the_roof", title="A layer on the roofline", dots=2, minutes=12, points=2, workshop=True,
        misconception="fewer bits make every layer faster",
        reference=references.on_the_roof, verify=checks.verify_on_the_roof,
        alternatives=(right.by_two_clocks, right.per_image),
        mistakes=(
            Mistake("weights for each image", wrong.weights_for_each_image, "you read the weights again for every image; once serves the whole batch"),
            Mistake("weights only", wrong.weights_only, "only the weights move in your count: the input is read and the output written, too"),
            Mistake("activations only", wrong.activations_only, "you forgot to read the weights"),
            Mistake("activations of one image", wrong.one_image_moved, "you move the input and output of one image; a batch has those of all"),
            Mistake("output forgotten", wrong.output_forgotten, "you forgot that the output has to be written"),
            Mistake("input forgotten", wrong.input_forgotten, "you forgot that the input has to be read"),
            Mistake("input once per MAC", wrong.input_once_per_weight, "you fetch an input for every multiplication; the model counts each number once, the cache holds it"),
            Mistake("bits as bytes", wrong.bits_as_bytes, "you took bits for bytes: 8 bits are one byte"),
            Mistake("always float", wrong.always_float, "you count 4 bytes per number, whatever `bits` is"),
            Mistake("only weights rounded", wrong.only_weights_rounded, "only your weights have `bits` bits; here inputs and outputs have as many"),
            Mistake("cheaper MACs", wrong.cheaper_macs, "you raise the peak for fewer bits; `peak` is already the peak for these numbers"),
            Mistake("operations", wrong.operations, "you count a MAC as two operations; the peak here counts MACs"),
            Mistake("MACs of one image", wrong.macs_of_one_image, "your MACs are those of one image, your bytes those of the batch"),
            Mistake("weights used once", wrong.weights_used_once, "you use every weight once per image; a convolution uses it at every place of the output"),
            Mistake("at every input", wrong.at_every_input, "you count the places of the input; with a stride or without padding the output has fewer"),
            Mistake("outputs times all weights", wrong.outputs_times_kernels, "you multiply all outputs by all weights: one output meets only one filter, weight[1:]"),
            Mistake("all channels", wrong.all_channels, "you let every output read all channels; a grouped convolution reads weight[1] of them"),
            Mistake("larger limit", wrong.larger_limit, "you took the larger of the two limits: both hold, so the smaller one counts"),
            Mistake("added clocks", wrong.added_clocks, "you add up the two times; moving and computing go on side by side"),
            Mistake("always the peak", wrong.always_peak, "you return the peak: a layer that waits for bytes does not reach it"),
            Mistake("slope without a roof", wrong.slope_without_roof, "you promise more than the peak: the slope ends there"),
            Mistake("bandwidth divided", wrong.bandwidth_divided, "you divide the bandwidth by the intensity: bytes per second times MACs per byte are MACs per second"),
            Mistake("bytes per MAC", wrong.bytes_per_mac, "your intensity is upside down: MACs per byte"),
            Mistake("seconds", wrong.seconds, "your second number is the time; MACs per second are asked"),
            Mistake("share of the peak", wrong.share_of_peak, "your second number is a share of the peak; MACs per second are asked"),
            Mistake("turned", wrong.turned, "you return the two numbers in the other order: MACs per byte come first")),
        hints=("Three counts: the multiplications of the whole batch, the numbers that move, and the bytes these are. An output needs one filter: as many MACs as weight[1:] has numbers.",
               "macs = batch * prod(out) * prod(weight[1:]); numbers = prod(weight) + batch * (prod(image) + prod(out)); the limit is the smaller of peak and bandwidth * intensity.",
               "macs = batch * ...\nnumbers = prod(weight) + batch * (...)\nintensity = macs / (numbers * ... / 8)\nreturn intensity, min(..., ...)")),
    Exercise(
        id="11.8", name="predict_gain", title="What a change brings to the whole network", dots=2, minutes=12, points=2,
        misconception="int8 is 4x",
        reference=references.predict_gain, verify=checks.verify_predict_gain,
        alternatives=(right.with_arrays, right.one_over),
        mistakes=(
            Mistake("rest forgotten", wrong.rest_forgotten, "you left out `rest`: what the change does not touch stays in both times"),
            Mistake("mean of the gains", wrong.mean_of_gains, "you average the gains of the layers; a layer that takes no time counts as much as the longest then: add up times"),
            Mistake("mean of what is left", wrong.mean_of_shares, "you average what is left of each layer's time, short or long; add up times"),
            Mistake("rest added to the gain", wrong.rest_added_to_the_gain, "you add `rest` to the gain; these are seconds, and belong to both times"),
            Mistake("weighted by time", wrong.weighted_by_time, "you average the gains by the layers' time; what gets faster becomes a smaller share: add up the new times instead"),
            Mistake("weighted by MACs", wrong.weighted_by_macs, "you average the gains by the layers' MACs; add up times"),
            Mistake("product of the gains", wrong.product_of_gains, "you multiply the gains of the layers; they run one after the other: add up times"),
            Mistake("best layer", wrong.best_layer, "you report the layer that gains most; the others take time, too"),
            Mistake("slowest layer", wrong.slowest_layer, "you look at the longest layer only; layers run one after the other, so all count"),
            Mistake("roof of the sums", wrong.roof_of_the_sums, "you put the sums under the roof; while one layer computes, the bytes of the next do not come yet: max for every layer, then the sum"),
            Mistake("clocks added", wrong.clocks_added, "you add computing and moving; within a layer they go on side by side: the longer one counts"),
            Mistake("computing only", wrong.computing_only, "you forgot the bytes: some layers wait for them"),
            Mistake("moving only", wrong.moving_only, "you forgot the MACs: some layers wait for the multiplier"),
            Mistake("faster clock", wrong.faster_clock, "you take the faster of the two clocks; the slower one decides"),
            Mistake("rest vanishes", wrong.rest_vanishes, "`rest` is in your old time only; it stays"),
            Mistake("rest for each layer", wrong.rest_per_layer, "you add `rest` for each layer; it is the sum of all that stays"),
            Mistake("rest subtracted", wrong.rest_subtracted, "you subtract `rest`: it is time on top of what the layers take"),
            Mistake("upside down", wrong.upside_down, "your quotient is upside down: old time over new time"),
            Mistake("share saved", wrong.share_saved, "you return the share of the time that is saved; asked is how many times faster"),
            Mistake("MACs saved", wrong.macs_saved, "you compare MACs, not times"),
            Mistake("old peak", wrong.old_peak, "you use the old peak for the new layers; each layer brings its own")),
        hints=("Gains cannot be averaged, times can be added. What is the time of one layer under the roof? Of all, with what stays?",
               "seconds(layers) = rest + sum of max(macs / peak, moved / bandwidth); the gain is seconds(before) / seconds(after).",
               "old, new = rest, rest\nfor macs, moved, peak in before:\n    old += ...\nfor macs, moved, peak in after:\n    new += ...\nreturn ...")),
)
