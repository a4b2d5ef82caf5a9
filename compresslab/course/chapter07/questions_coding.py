"""Questions 7.q1 to 7.q3 and predictions 7.p1 and 7.p2."""

from __future__ import annotations

from compresslab.course.exercise import Option, Prediction, Question

QUESTIONS = (
    Question(id="7.q1", prompt="A tenth of the weights, an eighth of the bits, and the file is far from eighty times smaller. What explains most of the gap?", workshop=True,
             options=(
        Option("places", "Each weight that is left needs its place as well, and that costs at least as much as its value. The dense network stored no places",
               "Yes. Shorter values leave the places as they are: from 8 to 2 bits the promise grew four times, the count much less. And with fewer weights "
               "each place gets dearer. Ratios multiply only for parts of the file that both methods shrink.", correct=True),
        Option("header", "The header, the code books and the biases, which nobody compressed",
               "They count, and with 99 % pruned they are a good part of the file. But look at the bars for 90 %: together they are the small end."),
        Option("padding", "The escapes: gaps that are too long for their code",
               "Gaps of 8 bits need hardly any (little more than 8 bits for each weight, printed above), and still the places take more than the values."),
        Option("accuracy", "Pruned weights had to be brought back, for accuracy",
               "None came back: the mask held, nine tenths are zero in the file."))),
    Question(id="7.q2", prompt="In the largest layer the uniform grid has about three times as many levels, the same error, and fewer bits under Huffman's code. Why?", options=(
        Option("surprise", "Its levels far out cost little, because they are hardly ever used; so the tails are well covered, and where the many weights are its "
                           "steps may be wider. An entropy code pays for how surprising a symbol is, not for how many there are",
               "Yes. For k-means each of its 16 levels costs the same, so it leaves the tails coarse and makes up for it near zero, where its levels are closer than the "
               "uniform step (look at the ticks). Under an entropy code rare levels are nearly free, and what counts is the step at the centre. What is optimal "
               "depends on the stage that comes next.", correct=True),
        Option("error", "K-means stops in a local optimum; its levels are not the best",
               "Better levels would change little. K-means minimises the error for a *number of levels*, and that is not what a Huffman-coded file pays for."),
        Option("book", "The uniform grid needs no code book",
               "16 floats are 64 bytes, in a layer of 235,200 weights. The printed entropies leave the code book out, and show the same."),
        Option("huffman", "Huffman's code works better the more symbols there are",
               "It comes as near to the entropy with 16 symbols as with 45 (within a few hundredths of a bit for the arrays above). The entropy itself is lower."))),
    Question(id="7.q3", prompt="In CLIP-Q a weight that is pruned in one step may be back some steps later. What brings it back?", options=(
        Option("master", "The gradient reaches the master copy of pruned weights as well: it grows behind the zero until it is among the largest",
               "Yes. The gradient at a pruned place says what the loss would gain by a weight there, and the straight-through pass writes it into the master. Under a "
               "mask the same gradient is multiplied by 0, so nothing can ever come back.", correct=True),
        Option("others", "Other weights shrink, so that it is among the largest, although it never changed itself",
               "That happens, too, where nothing pushes. But its master changes all the time: the gradient passes the clipping as if it were not there."),
        Option("mean", "The means of the intervals move until they include it",
               "An interval holds only weights that are left. Who is left is decided before, by size."),
        Option("random", "Adam adds noise to all weights, so some cross the limit by chance",
               "Adam adds no noise: a step is made of gradients. At a pruned place these would be zero with a mask, and are not with CLIP-Q."))),
)

PREDICTIONS = (
    Prediction(id="7.p1", prompt="A tenth of the weights, 4 bits instead of 32 for each. How many times smaller than the dense file will the whole file be, Huffman-coded?",
               unit="times", log=True, workshop=True),
    Prediction(id="7.p2", prompt="How many levels does the coarsest uniform grid need on this layer, if its mean squared error is to be no larger than that of 16 levels by "
               "k-means?", unit="levels", log=True),
)
