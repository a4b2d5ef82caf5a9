"""Chapter 00, "Start here": the ruler. The table of its exercises, questions and predictions."""

from compresslab.course.chapter00 import alternatives as other
from compresslab.course.chapter00 import checks, checks_speed, mistakes, mistakes_speed, references
from compresslab.course.chapter00.questions import PREDICTIONS, QUESTIONS
from compresslab.course.exercise import Chapter, Exercise, Mistake

CHAPTER = Chapter(number="00", slug="start_here", title="Start here", exercises=(
    Exercise(
        id="0.1", name="compression_ratio", title="Ten times smaller",
        misconception="the ratio of a network is the mean of its layers' ratios",
        reference=references.compression_ratio, verify=checks.verify_compression_ratio,
        mistakes=(
            Mistake("upside down", mistakes.ratio_upside_down,
                    "your ratio is upside down: dense bits over compressed bits, so that 10 means ten times "
                    "smaller"),
            Mistake("fraction saved", mistakes.ratio_as_saving,
                    "that is the fraction saved, not the ratio: 0.9 saved is a ratio of 10, 0.99 saved is "
                    "100"),
            Mistake("percent saved", mistakes.ratio_as_percent,
                    "that is the percentage saved, not the ratio: 90 % saved is a ratio of 10"),
            Mistake("mean over layers", mistakes.ratio_mean_of_layers,
                    "you averaged the layers' ratios: then a tiny layer weighs as much as a huge one; add "
                    "up the bits first"),
            Mistake("product over layers", mistakes.ratio_product_of_layers,
                    "you multiplied the layers' ratios: two layers that shrink 10 times give a network that "
                    "shrinks 10 times")),
        hints=("One file holds all layers. How many bits is it before, how many after?",
               "ratio = (sum of dense bits over all layers) / (sum of compressed bits over all layers)",
               "return dense_bits.sum() / ..."),
        alternatives=(other.ratio_with_a_loop, other.ratio_weighted_mean),
        dots=1, minutes=5, points=1, workshop=True),
    Exercise(
        id="0.2", name="paired_difference", title="Is 98.1 better than 97.9?",
        misconception="98.1 beats 97.9",
        reference=references.paired_difference, verify=checks.verify_paired_difference,
        mistakes=(
            Mistake("B minus A", mistakes.paired_reversed,
                    "your sign is reversed: the difference is the accuracy of A minus that of B"),
            Mistake("counts disagreements", mistakes.paired_disagreement,
                    "you compared the networks with each other, not with the labels: two different wrong "
                    "answers are a tie"),
            Mistake("unpaired", mistakes.paired_as_independent,
                    "you added the variances of two independent accuracies, but both networks saw the same "
                    "images: "
                    "take the difference image by image first, then its standard deviation"),
            Mistake("standard deviation, not error", mistakes.paired_not_divided,
                    "you used the standard deviation of one image's difference; the mean of n images is "
                    "sqrt(n) times steadier"),
            Mistake("divided by n", mistakes.paired_divided_by_n,
                    "you divided the standard deviation by n; the error of a mean falls with sqrt(n) only"),
            Mistake("one standard error", mistakes.paired_one_sigma,
                    "your interval is one standard error wide to each side: that holds the truth about 68 "
                    "times of 100; "
                    "95 % takes 1.96 standard errors"),
            Mistake("in percent", mistakes.paired_in_percent,
                    "you return percent; accuracies are fractions in [0, 1] everywhere in this course")),
        hints=("For each image there are three cases: only A is right (+1), only B is right (-1), else 0. "
               "You want the mean of these numbers, and how far it would wander with other images.",
               "d_i = [a_i = y_i] - [b_i = y_i];  difference = mean(d);  margin = 1.96 * std(d) / sqrt(n)",
               "d = (predictions_a == labels).double() - ...\ndifference = d.mean()\nmargin = 1.96 * ... / "
               "len(d) ** 0.5\n"
               "return difference, difference - margin, difference + margin"),
        alternatives=(other.paired_from_flips, other.paired_with_numpy),
        dots=3, minutes=15, points=3, workshop=True),
    Exercise(
        id="0.3", name="evaluate", title="Debug: the accuracy that will not stand still",
        misconception="torch.no_grad() is evaluation mode",
        reference=references.evaluate, verify=checks.verify_evaluate,
        mistakes=(
            Mistake("mode not set", mistakes.evaluate_in_train_mode,
                    "the network is measured in the mode it came in: in train mode dropout drops and batch "
                    "norm uses (and "
                    "updates) the statistics of your test batches; no_grad only stops the gradients"),
            Mistake("sets train mode", mistakes.evaluate_forces_train,
                    "you switched train mode on: the network to measure is the one in eval mode"),
            Mistake("mean of batch accuracies", mistakes.evaluate_mean_of_batches,
                    "you averaged the accuracies of the batches: an image of the small last batch then "
                    "counts more than others"),
            Mistake("left in eval mode", mistakes.evaluate_stays_in_eval,
                    "you leave the network in eval mode: whoever trains on after your measurement trains "
                    "with frozen batch norm "
                    "and without dropout"),
            Mistake("always back to train", mistakes.evaluate_ends_in_train,
                    "you return every network in train mode, also one that came in eval mode")),
        hints=("Two layers of these networks do something else while training. Who tells them that training "
               "is over?",
               "model.training is True or False; model.eval() switches, model.train(mode) sets the mode you "
               "remember",
               "was_training = model.training\nmodel.eval()\n...  # the loop is right as it "
               "is\nmodel.train(...)\n"
               "return correct / total"),
        alternatives=(other.evaluate_by_concatenating, other.evaluate_weighted),
        dots=2, minutes=10),
    Exercise(
        id="0.4", name="storage_bits", title="Count the bits",
        misconception="a network takes 32 bits per parameter",
        reference=references.storage_bits, verify=checks.verify_storage_bits,
        mistakes=(
            Mistake("bytes", mistakes.storage_in_bytes, "you counted bytes: one byte is 8 bits"),
            Mistake("zeros left out", mistakes.storage_without_zeros,
                    "you counted only the nonzeros, but a zero in a dense tensor takes as many bits as any "
                    "other number"),
            Mistake("32 bits for all", mistakes.storage_all_float32,
                    "you gave every number 32 bits: a float16 takes 16, an int8 8, a boolean 8 (not 1), an "
                    "int64 64"),
            Mistake("floats only", mistakes.storage_floats_only,
                    "you left out tensors that are not floating point: masks, codes and counters are in the "
                    "file, too"),
            Mistake("names instead of storages", mistakes.storage_names_counted,
                    "you counted every name of the state_dict: two names may share one storage, and it is "
                    "there once"),
            Mistake("address of the first number", mistakes.storage_by_first_address,
                    "you took tensors for the same when their first numbers lie at the same address: two "
                    "views of one storage "
                    "may begin at different places, and a short view may begin where a long one does"),
            Mistake("size of the first view", mistakes.storage_first_view_only,
                    "you found the shared storages, but gave each the size of the view you met first: ask "
                    "the storage "
                    "itself for its size")),
        hints=("A tensor is a window onto a storage, a plain block of bytes. Count the blocks, each once, "
               "not the windows.",
               "tensor.untyped_storage() is the block; .data_ptr() says where it begins (equal for shared "
               "ones), .nbytes() how big",
               "sizes = {}\nfor tensor in state.values():\n    storage = tensor.untyped_storage()\n"
               "    sizes[...] = ...\nreturn 8 * sum(sizes.values())"),
        alternatives=(other.storage_with_a_set, other.storage_through_c_pointers),
        dots=2, minutes=10),
    Exercise(
        id="0.5", name="pack_bits", title="Four bits are half a byte",
        misconception="a 4-bit number takes 4 bits",
        reference=references.pack_bits, verify=checks.verify_pack_bits,
        mistakes=(
            Mistake("a byte per code", mistakes.pack_byte_per_code,
                    "you give each code a byte of its own: the smallest dtype is 8 bits wide, so 4-bit "
                    "codes must share one"),
            Mistake("numpy's default order", mistakes.pack_numpy_default,
                    "the bits of each byte are in reverse: numpy.packbits fills the highest bit first; say "
                    "bitorder='little'"),
            Mistake("high bit of a code first", mistakes.pack_high_bit_of_code_first,
                    "you wrote each code with its highest bit first; here the lowest bit comes first"),
            Mistake("everything big-endian", mistakes.pack_all_big_endian,
                    "you packed highest bit first throughout: a good order, but not the one of this file; "
                    "the lowest bit of the "
                    "first code is the lowest bit of the first byte"),
            Mistake("tail dropped", mistakes.pack_drops_the_tail,
                    "the last bits do not fill a byte, and you dropped them: round the number of bytes up"),
            Mistake("no carry", mistakes.pack_without_carry,
                    "a code that crosses the border between two bytes loses its upper bits: the rest "
                    "belongs into the next byte"),
            Mistake("whole codes per byte", mistakes.pack_whole_codes_per_byte,
                    "you put only whole codes into a byte: with 3 bits two of eight bits stay empty; let "
                    "codes cross the border"),
            Mistake("planes transposed", mistakes.pack_bit_planes,
                    "you wrote all lowest bits, then all second bits: the bits of one code must lie side by "
                    "side")),
        hints=("Write every code as `bits` zeros and ones, lay them all in one row, cut the row into pieces "
               "of eight.",
               "bit j of code c is (c >> j) & 1, j = 0 ... bits-1; the row is filled up with zeros to a "
               "multiple of 8; "
               "a byte with bits b_0 ... b_7 is sum b_j 2^j",
               "planes = (codes.reshape(-1, 1).long() >> torch.arange(bits)) & 1   # (n, bits)\nstream = "
               "planes.flatten()\n"
               "stream = F.pad(stream, (0, -len(stream) % 8)).view(-1, 8)\nreturn "
               "(...).sum(1).to(torch.uint8)"),
        alternatives=(other.pack_as_one_number, other.pack_with_numpy, other.pack_with_a_carry),
        dots=3, minutes=15, points=3),
    Exercise(
        id="0.6", name="sparse_code", title="Make the zeros pay",
        misconception="zeros are free",
        reference=references.sparse_code, verify=checks.verify_sparse_code,
        mistakes=(
            Mistake("boolean mask", mistakes.sparse_bool_mask,
                    "your mask is a boolean tensor, and a boolean takes a whole byte: pack it, eight to a "
                    "byte"),
            Mistake("64-bit indices", mistakes.sparse_indices,
                    "you stored the positions as int64: 64 bits for each nonzero, twice what its value "
                    "takes; one bit for each "
                    "weight is cheaper unless hardly any are left"),
            Mistake("zeros kept", mistakes.sparse_keeps_zeros,
                    "your values still hold the zeros, at 32 bits each: keep the others only"),
            Mistake("negatives dropped", mistakes.sparse_positive_only,
                    "you kept the positive weights only: a negative weight is not zero"),
            Mistake("marks the zeros", mistakes.sparse_marks_the_zeros,
                    "your mask marks the zeros; 1 must mean that a value is stored"),
            Mistake("values reordered", mistakes.sparse_sorted_values,
                    "you changed the order of the values: the decoder hands them out in the order of the "
                    "mask"),
            Mistake("a view of the dense tensor", mistakes.sparse_as_a_view,
                    "your values are a view: the whole dense storage still stands behind them, and would be "
                    "kept")),
        hints=("Which weights are not zero: one bit each. What they are: 32 bits each, and only those.",
               "bytes = ceil(n / 8) + 4 nnz;  the mask is pack_bits of zeros and ones, with 1 bit each",
               "keep = weight.flatten() != 0\nreturn {\"mask\": pack_bits(..., 1), \"values\": "
               "weight.flatten()[...]}"),
        alternatives=(other.sparse_with_numpy, other.sparse_with_a_loop),
        dots=2, minutes=10, workshop=True),
    Exercise(
        id="0.7", name="conv_macs", title="Count the operations",
        misconception="fewer parameters are fewer operations",
        reference=references.conv_macs, verify=checks_speed.verify_conv_macs,
        mistakes=(
            Mistake("weights only", mistakes_speed.macs_as_parameters,
                    "you counted the weights: each of them is used once at every output position"),
            Mistake("without groups", mistakes_speed.macs_without_groups,
                    "you forgot the groups: an output channel sees only in_channels / groups input channels"),
            Mistake("groups twice", mistakes_speed.macs_groups_twice,
                    "you divided by the groups twice: the weight's second dimension is in_channels / groups "
                    "already"),
            Mistake("FLOPs instead of MACs", mistakes_speed.macs_as_flops,
                    "you counted a multiplication and an addition: that is FLOPs; one multiply-accumulate "
                    "holds both"),
            Mistake("without padding", mistakes_speed.macs_without_padding,
                    "you forgot the padding: it makes the output larger"),
            Mistake("without dilation", mistakes_speed.macs_without_dilation,
                    "you forgot the dilation: a dilated kernel reaches over d (k - 1) + 1 pixels"),
            Mistake("at the input's size", mistakes_speed.macs_at_input_size,
                    "you multiplied with the input's height and width: the kernel is applied once per "
                    "output position, and "
                    "stride and padding decide how many there are")),
        hints=("Every weight meets every output position exactly once. How many weights? How many positions?",
               "MACs = O (I / g) k_h k_w H' W',  H' = floor((H + 2 p - d (k_h - 1) - 1) / s) + 1",
               "out = []\nfor axis, size in enumerate((height, width)):\n    reach = layer.dilation[axis] * "
               "(...) + 1\n"
               "    out.append((size + 2 * layer.padding[axis] - reach) // ... + 1)\nreturn "
               "layer.weight.numel() * ..."),
        alternatives=(other.macs_by_running_it, other.macs_from_the_channels),
        dots=2, minutes=10),
    Exercise(
        id="0.8", name="time_fairly", title="A fair race",
        misconception="I timed it",
        reference=references.time_fairly, verify=checks_speed.verify_time_fairly,
        mistakes=(
            Mistake("sequential, no warm-up", mistakes_speed.time_sequential_and_cold,
                    "you measured one function after the other, each from its cold first call on: the "
                    "machine changes between "
                    "them, and you blame the function; warm up, then take turns"),
            Mistake("one after the other", mistakes_speed.time_one_after_the_other,
                    "you measured all of the first, then all of the second: a machine that slows down "
                    "meanwhile makes equal "
                    "functions look different; take turns"),
            Mistake("no warm-up", mistakes_speed.time_without_warm_up,
                    "the first call of each function is among the samples: it fills caches and allocates "
                    "memory; run each once "
                    "without measuring"),
            Mistake("warm-up kept", mistakes_speed.time_keeps_the_warm_up,
                    "you return the warm-up among the samples: one too many, and the slowest"),
            Mistake("only one warmed up", mistakes_speed.time_warms_up_the_first,
                    "you warmed up only the first function: the others are measured cold"),
            Mistake("started once per round", mistakes_speed.time_from_one_start,
                    "you start the clock once per round: the second function's time then holds the first "
                    "one's, too"),
            Mistake("average only", mistakes_speed.time_average_only,
                    "you return the average in place of the samples: one interruption spoils it, and the "
                    "spread is lost")),
        hints=("Rounds. In each round every function runs once, each between two readings of the clock. The "
               "first round is "
               "thrown away.",
               "seconds = clock() after - clock() before, for one call of one function; rounds 0 (warm-up), "
               "1, ..., repeats",
               "samples = {name: [] for name in functions}\nfor turn in range(repeats + 1):\n"
               "    for name, function in functions.items():\n        start = clock()\n        ...\n"
               "        if turn > 0:\n            ...\nreturn samples"),
        alternatives=(other.time_there_and_back, other.time_in_random_order),
        dots=3, minutes=15, points=3, track="stretch"),
    Exercise(
        id="0.9", name="roofline", title="The roofline of one layer",
        misconception="FLOPs are time",
        reference=references.roofline, verify=checks_speed.verify_roofline,
        mistakes=(
            Mistake("operations only", mistakes_speed.roofline_operations_only,
                    "you let the operations alone decide the time: the numbers must also come out of "
                    "memory, and whichever takes "
                    "longer decides"),
            Mistake("sum of both", mistakes_speed.roofline_sum,
                    "you added the two times: the machine loads the next numbers while it computes, so the "
                    "longer one decides"),
            Mistake("the faster decides", mistakes_speed.roofline_min,
                    "you took the shorter of the two times: the slower one decides"),
            Mistake("numbers instead of bytes", mistakes_speed.roofline_elements,
                    "you counted numbers, not bytes: a float32 takes 4 bytes"),
            Mistake("one operation per weight", mistakes_speed.roofline_one_per_mac,
                    "you counted one operation per weight and image: a multiply-accumulate is two "
                    "floating-point operations, "
                    "and the peak counts both"),
            Mistake("weights once per image", mistakes_speed.roofline_weights_per_image,
                    "you load the weights anew for every image: a batch shares one pass over them, that is "
                    "why batches pay"),
            Mistake("weights only", mistakes_speed.roofline_weights_only,
                    "you moved the weights only: the inputs are read and the outputs written, too"),
            Mistake("weights forgotten", mistakes_speed.roofline_without_weights,
                    "you forgot the weights: they must be read once, and at batch 1 they are nearly "
                    "everything")),
        hints=("Two clocks run at the same time: one counts operations, one counts bytes. The slower one "
               "tells the time.",
               "F = 2 N I O;  B = 4 (N I + I O + N O);  intensity = F / B;  time = max(F / peak, B / "
               "bandwidth)",
               "flops = 2 * batch * inputs * outputs\nmoved = 4 * (...)\nreturn flops / moved, max(..., "
               "...)"),
        alternatives=(other.roofline_by_intensity, other.roofline_with_branches),
        dots=3, minutes=15, points=3, workshop=True),
), questions=QUESTIONS, predictions=PREDICTIONS)
