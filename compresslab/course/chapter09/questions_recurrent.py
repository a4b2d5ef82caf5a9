"""Questions 9.q1 and 9.q2, and prediction 9.p1."""

from __future__ import annotations

from compresslab.course.exercise import Option, Prediction, Question

QUESTIONS = (
    Question(id="9.q1", prompt="Same network, same characters: cut into windows of 16 they cost clearly more bits than in windows of 128. Why?", options=(
        Option("no past", "Every window begins without a past. The first characters of a window are guessed from nothing or little, and short windows have more such "
                          "characters",
               "Yes. The curve above is all there is to it: its mean over 16 positions is higher than over 128. So a number of bits per character means something only "
               "with its text, its windows and its vocabulary, and models are compared window by window.", correct=True),
        Option("unseen length", "The network was trained on windows of 128 and does not know what to do in windows of 16",
               "Position 5 of a short window is computed exactly as position 5 of a long one: an LSTM cannot see how long its window will be."),
        Option("mean", "There are eight times as many windows, so the sum of their bits is larger",
               "It is a mean over characters, whatever number of windows they are dealt into."),
        Option("noise", "That is noise: shorter windows make the mean less certain",
               "They are the same characters, and the difference is many times the interval. It is no chance: it is what the first positions cost."))),
    Question(id="9.q2", prompt="With equal work for every processing element, the mask must drop some weights that are larger than some it keeps elsewhere. Why does that cost "
                               "next to nothing in bits per character?", options=(
        Option("close", "The elements have interleaved rows, so each has rows of all four gates and much the same distribution of weights. Their thresholds nearly agree, and "
                        "only weights close to the threshold are exchanged, which matter about equally little",
               "Yes. A few percent of the kept weights are exchanged for others of almost the same size. If an element had one gate to itself, equal numbers would "
               "be a real constraint: look at how unequally the gates are pruned.", correct=True),
        Option("fewer", "Because the balanced mask keeps more weights in all",
               "Both keep the same number, up to rounding. Only their places differ."),
        Option("random", "Because in a recurrent network it does not matter which weights go",
               "It does: prune at random, and see. These two masks agree almost everywhere."),
        Option("retrained", "Because training brings the lost weights back",
               "Nothing was trained here. And a mask holds: what it drops stays zero in training, too."))),
)

PREDICTIONS = (
    Prediction(id="9.p1", prompt="Four fifths of the recurrent matrix are pruned by magnitude. An accelerator has 320 elements, one multiplication a cycle each; one step takes as long as "
               "its busiest element. How many times fewer cycles than with the dense matrix?", unit="times", log=True),
)
