"""The questions and predictions of chapter 01."""

from __future__ import annotations

from compresslab.course.exercise import Option, Prediction, Question

QUESTIONS = (
    Question(id="1.q1", prompt="One ranking for all layers took most of `fc1` and little of `fc3`. Why?", options=(
        Option("fan-in", "`fc3` has larger weights: it reads 100 numbers, `fc1` reads 784, and weights shrink as inputs grow",
               "Yes. Magnitudes of different layers live on different scales, and a global ranking takes them at face value.", correct=True),
        Option("importance", "The ranking found out that the loss depends more on `fc3`",
               "Nobody evaluated the loss: the ranking saw magnitudes only. That it spares the right layer here is luck of the scales."),
        Option("rule", "Global pruning spares the last layer by a rule",
               "There is no such rule in your function: it has never heard of layers."),
        Option("small", "A layer with so few weights cannot lose 90 % of them",
               "It can: the layer-wise mask took exactly that share of it."))),
    Question(id="1.q2", prompt="In the figure, which comparison tells what the *choice of the weights* is worth?", options=(
        Option("random", "Inherited against random mask: the same trained weights, the same number in each layer, other places",
               "Yes. Everything else is equal, so the distance between these two curves is what the criterion earned.", correct=True),
        Option("dense", "Inherited against the unpruned network",
               "That tells what pruning costs, not what the choice of the weights earned: any mask would have a cost."),
        Option("scratch", "Inherited against from scratch",
               "Both have the same mask. Their distance tells what the inherited values are worth."),
        Option("bytes", "Inherited against the dense network of the same bytes",
               "That tells whether pruning was worth while at all: an important question, and another one."))),
    Question(id="1.q3", prompt="95 % of the weights are zero. Why is the file of the masked network not smaller?", workshop=True, options=(
        Option("dense", "A zero in a dense tensor takes 32 bits, like any other float",
               "Yes. Size changes only when the zeros are left out and their places are written down more cheaply.", correct=True),
        Option("mask", "The mask is stored beside the weights, and it is that large",
               "Not here: it was baked in before saving. Stored as bools it would make the file larger still."),
        Option("few", "95 % is not enough zeros",
               "Any number of zeros gives the same file: the format never looks at values."),
        Option("disk", "Files have a smallest size on the disk",
               "Blocks of the disk have a few thousand bytes; this file has a thousand thousand."))),
    Question(id="1.q4", prompt="Fewer bits per code make every code cheaper. Why does the index grow again below four bits?", options=(
        Option("escapes", "Most gaps no longer fit, and each of them needs several escape codes",
               "Yes. The best width balances the bits of a code against the number of escapes; it follows the density.", correct=True),
        Option("values", "The weights that remain need more bits",
               "Their 32 bits do not depend on how their places are written."),
        Option("bytes", "Codes are padded to whole bytes",
               "They are packed without gaps: eight codes of three bits take three bytes."),
        Option("header", "The header grows", "The header is the same for every width."))),
    Question(id="1.q5", prompt="Optimal Brain Surgeon removed larger weights than magnitude did, and the loss rose less. How?", options=(
        Option("neighbours", "The inputs are correlated, so other weights can take over what the removed one did",
               "Yes. Importance is no property of one weight: it depends on who can replace it, and that is what the inverse Hessian knows.",
               correct=True),
        Option("large", "Large weights are the unimportant ones",
               "Not in general: with uncorrelated inputs of equal size, magnitude, OBD and OBS agree."),
        Option("data", "It trained the network again on more data",
               "It saw H only, the same H for all three. Its step is one formula, no training."),
        Option("luck", "By luck: on another problem magnitude would win",
               "On a quadratic OBS never pays more than OBD for the same weight: moving the others is optional and it takes the best move."))),
    Question(id="1.q6", prompt="90 % of the factors are zero, and the network is not faster. Why?", workshop=True, options=(
        Option("kernel", "The dense kernel multiplies by every weight; it does not look whether it is zero",
               "Yes. Skipping costs a test and an irregular memory access per weight; dense kernels win until far more than 90 % is zero.",
               correct=True),
        Option("mask", "Applying the mask costs as much as the zeros save",
               "The mask was baked into the weights before the clock started: the network under test is plain."),
        Option("file", "The network must be loaded from its sparse file first",
               "After loading, the weights are dense tensors again: packed is not fast."),
        Option("more", "At 99 % the same kernel would be faster",
               "The same kernel would do the same multiplications: it has no way to know."))),
    Question(id="1.q7", prompt="Instead of zeroing gamma and beta you could keep the leak, a constant, and add what it contributes to the next "
             "layer's bias. Behind which next layer is that exact?", options=(
        Option("padding", "A convolution without zero padding, or a linear layer",
               "Yes. With zero padding a border pixel sees fewer copies of the constant than an inner one, and one bias cannot be both.",
               correct=True),
        Option("always", "Any: a constant input always adds a constant output",
               "At the border of a zero-padded convolution some of the inputs are padding and not the constant."),
        Option("linear", "Linear layers only", "A convolution that does not pad sees the constant everywhere, too."),
        Option("never", "None: batch norm changes it with every image",
               "In eval mode batch norm uses its running statistics: the leak is the same for all images."))),
    Question(id="1.q8", prompt="For every filter in front of a batch norm in train mode, the sum of gradient times weight is zero. Why?", options=(
        Option("scale", "Batch norm undoes the scale of a filter, so the loss has no slope along the filter itself",
               "Yes. L(a w) = L(w) for every a > 0, and the derivative by a at a = 1 is exactly that sum. Ask behind the batch norm instead.",
               correct=True),
        Option("minimum", "The network is trained, so its gradients are zero",
               "The gradient is not zero, you printed its size: it is perpendicular to the filter."),
        Option("useless", "These filters are unimportant", "All of them at once? Then the network would be a constant."),
        Option("signs", "Positive and negative weights cancel by chance",
               "Chance would not reach seven digits in every filter."))),
)

PREDICTIONS = (
    Prediction(id="1.p1", prompt="You zero the smallest 90 % of the weights of each layer and do not train. What accuracy is left?", unit="%"),
    Prediction(id="1.p2", prompt="You save the network with 95 % of its weights masked. How large is its file, compared with the dense one?",
               unit="times the dense file", log=True, workshop=True),
    Prediction(id="1.p3", prompt="Now only the weights that are left are stored, and codes that say where they are: 20 times fewer weights. "
               "How many times smaller is the file?", unit="x", log=True, workshop=True),
    Prediction(id="1.p4", prompt="90 % of the weights of the VGG-like network are zero. How many times faster is it?", unit="x", log=True,
               workshop=True),
    Prediction(id="1.p5", prompt="Channels are taken out until half of the multiply-accumulates are left. How many times faster is it?",
               unit="x", log=True, workshop=True),
)
