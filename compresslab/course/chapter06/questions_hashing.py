"""Questions 6.q1 to 6.q3 and predictions 6.p1 and 6.p2."""

from __future__ import annotations

from compresslab.course.exercise import Option, Prediction, Question

QUESTIONS = (
    Question(id="6.q1", prompt="Four layers of a network are one and the same module. After which step is the sharing gone, although not a single number "
                               "has changed?", options=(
        Option("load", "`other.load_state_dict(model.state_dict())`, where `other` was built with four layers of its own",
               "Yes. The names of all four layers are in the state dict, so four layers get equal numbers, each a copy of its own. The network answers as before, "
               "is four times as large, and the next training step moves the copies apart. Sharing is a property of the memory, not of the numbers.", correct=True),
        Option("save", "`save(model, path)`, then `load(path, other)` into the same `other`",
               "This library notes which layers are one, writes the numbers once, and restores the sharing: `unique_parameters` said so above. Not every library does."),
        Option("deepcopy", "`copy.deepcopy(model)`",
               "It remembers which objects it has copied: one module stays one module. It is two parameters *around one tensor* that it tears apart, as printed above."),
        Option("step", "`optimizer.step()`",
               "An optimizer writes into the tensor where it lies, so all that share it see the change. And here numbers did change."))),
    Question(id="6.q2", prompt="With one value, everything hung on the signs. From eight values on, at most a few points did. What do the signs do?", options=(
        Option("different", "They make the units differ: with one value and no signs, all units compute the same sum. With more values the hash alone makes them "
                            "differ, and trained values have signs of their own",
               "Yes. Copies of one unit are one unit, however many. Signs also keep the error of a collision at 0 on the average, for any values; but training may choose the "
               "values, and then it needs that less.", correct=True),
        Option("collisions", "They prevent collisions: two weights of one bucket with different signs do not share",
               "They share as before, one as +w, the other as -w: whoever moves w moves both. The widget counts as many that share, with signs or without."),
        Option("two", "They double the number of values: w and -w are two",
               "Then one value with signs, which would be two, should be behind eight without. It is not, see the rows. What must be more than one is not "
               "the number of values but the number of different units."),
        Option("gradient", "Without signs the gradients in a bucket cancel, so it cannot learn",
               "Look back at the lengths: one value had a gradient of more than a thousand weights, with signs and without. It could learn well; there was only "
               "nothing that one equal weight for every pixel and every unit could say."))),
    Question(id="6.q3", prompt="A HashedNet beats the small dense network of the same file size. What may you conclude?", options=(
        Option("width", "At this file size, 784 units with weights that nobody chose freely are worth more than a few free units; the price is the operations, "
                        "which are those of the large network",
               "Yes. And look at the row with one value: it beats its rival, too, and its weights have learned one number. A random layer of 784 units "
               "and a trained readout is a strong network that stores little (its weights are a seed). Ask of every sharer what a random one would do.", correct=True),
        Option("free", "Virtual parameters are free: the more of them, the better, at the same file",
               "They cost time and memory when the network runs, as many operations as real ones (printed above). Free is only their storage."),
        Option("learned", "The hash found out which weights belong together",
               "The hash has not seen a weight or an image: who shares was decided by arithmetic on the place. Finding out is what clusters do, in the next section."),
        Option("dense", "A HashedNet is as good as the dense network it imitates",
               "The comparison was with a small dense network. The large one, which stores far more, is above both in the figure."))),
)

PREDICTIONS = (
    Prediction(id="6.p1", prompt="64 weights, drawn at random from the layer, share each number. How many times longer (root mean square) is the gradient of a shared number "
               "than that of a single weight?", unit="times", log=True),
    Prediction(id="6.p2", prompt="ONE stored value for all 614,656 weights of the square layer, each plus or minus that value by the hash. With the biases and the readout "
               "trained as before: how many percent of the validation images will be right?", unit="%"),
)
