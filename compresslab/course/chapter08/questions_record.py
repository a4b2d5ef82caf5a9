"""Questions 8.q1 to 8.q3 and predictions 8.p1 and 8.p2."""

from __future__ import annotations

from compresslab.course.exercise import Option, Prediction, Question

QUESTIONS = (
    Question(id="8.q1", prompt="The paper on trained ternary quantization prints +0.3 points for AlexNet, an independent re-run -0.9. No rule of your audit was "
                               "broken. Which reading fits the two rows?", options=(
        Option("baseline", "Each number is a difference to a baseline of its own; against a stronger one the same method may turn from a gain into a loss",
               "Yes. The re-run says what its baseline is: 58.6 %, an AlexNet with batch norm. The paper's row does not even print one. A change without "
               "its baseline is half a number, and training the baseline too little is the cheapest way to gain.", correct=True),
        Option("arithmetic", "One of the two made an arithmetic mistake",
               "The re-run's numbers add up: 57.7 - 58.6 = -0.9, and your audit checked it. The paper's row states the change alone, so nothing can be added up."),
        Option("truth", "The paper knows its method best, so +0.3 is right and the re-run has a bug",
               "It may have one. But the numbers do not say so, and who wrote a method also tuned it, and seldom tunes the baseline as long."),
        Option("noise", "1.2 points are within chance, so the two agree",
               "On the 50,000 validation images of ImageNet an accuracy near 58 % is known to less than half a point to each side; `accuracy_interval`, which "
               "comes next, says so. 1.2 points are not chance of the images. They may be chance of the training, but one run each says nothing of it."))),
    Question(id="8.q2", prompt="Which of these errors, all of them really printed somewhere, can none of your four rules find?", options=(
        Option("label", "A student's 74.45 % stands in the column of another student",
               "Yes. The number is measured, plausible, and adds up; only the name above it is wrong. It was found by comparing two tables. The audit finds what "
               "contradicts itself, a second source finds the rest; so keep the source beside every number.", correct=True),
        Option("eight", "A network of 8-bit weights, 4.49 times smaller than its float original",
               "That one your rule \"bits\" finds: 8 bits cannot make more than 4 of 32. The float file held a branch that the other file did not: not like with like."),
        Option("zero", "0.00 % for a method that does not fit the pair of networks",
               "That one your rule \"range\" finds. Somebody's table had no other sign for \"not applicable\"; an average over that column would have believed it."),
        Option("versions", "Two versions of one paper, -2.9 points in the one, \"the same\" in the other",
               "That one your rule \"conflict\" finds. It cannot say which of them is right, so quote the version with the number."))),
    Question(id="8.q3", prompt="Of two settings, A's dot is on the front and B's dot is not, but B is in the band: nothing surely beats it. What may you say?", options=(
        Option("open", "That A is better than B is not shown by this; compare the two image by image, and over seeds, if it matters",
               "Yes. The band is the list of those that you may not dismiss by this figure. The image-by-image comparison is sharper, and decided some of the "
               "pairs of section 2 whose intervals overlap.", correct=True),
        Option("dot", "A is better: its dot is higher and it is the best estimate there is",
               "It is the best guess, and a guess it stays: you saw how many change places when only the images, or also the seed, are others. Whoever publishes the best dot of "
               "many publishes luck, too."),
        Option("equal", "A and B are equally good: their intervals overlap",
               "Not being able to tell two things apart does not make them equal. With ten times the images they may come apart."),
        Option("never", "Their intervals overlap, so no comparison on these images can tell them apart",
               "Overlap of two intervals is a blunt test. Both networks answered the same images, easy and hard; the paired difference leaves out what they share, "
               "and in section 2 it told pairs apart whose intervals overlap."))),
)

PREDICTIONS = (
    Prediction(id="8.p1", prompt="A network is right on 98 % of the images. How many test images does it take until its 95 % interval is no wider than 0.1 points "
                                 "to each side?", unit="images", log=True),
    Prediction(id="8.p2", prompt="You have seen the front of dots of `resnet8`. Now let every dot be anywhere in its interval. How many settings does no other setting surely "
                                 "beat?", unit="settings"),
)
