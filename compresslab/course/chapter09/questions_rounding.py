"""Questions 9.q3 and 9.q4, predictions 9.p2 and 9.p3."""

from __future__ import annotations

from compresslab.course.exercise import Option, Prediction, Question

QUESTIONS = (
    Question(id="9.q3", prompt="On a few columns your function makes a smaller error than rounding to the nearest in the mean, and still some rows come out worse. Why?", options=(
        Option("greedy", "Each step is the best answer to the errors so far, but it moves weights that are rounded later, and where these then land nobody has foreseen",
               "Yes. Passing on is optimal for columns that could stay real numbers. They cannot: a weight that was near a grid point may be moved to the middle between two. "
               "On average that costs nothing, a moved weight lands no worse than any other; in a single short row it may. Over 128 columns bad luck and good luck even out.", correct=True),
        Option("inverse", "All rows share one inverse Hessian, which fits some rows better than others",
               "The Hessian of a row's error is the same for all rows: H depends on the inputs only. Sharing it is exact, and is what makes the method fast."),
        Option("data", "The error is measured on other text than the function was calibrated on",
               "Both numbers come from the same H here. On other text there would be such rows as well, for one reason more."),
        Option("damping", "What was added to the diagonal of H distorts the compensation",
               "It makes the compensation a little weaker than optimal. Without it, too, some short rows come out worse: try it."))),
    Question(id="9.q4", prompt="Three networks with the same function: planted outliers, smoothed, rotated. In floats they write the same text; with 8-bit activations one is much "
             "worse. What decides?", options=(
        Option("basis", "Rounding with one scale for a whole vector depends on the numbers in which the function is written; the function itself does not",
               "Yes. There are endlessly many networks with this function, and rounding is fair to those whose channels are about equally loud. Choosing among them costs no "
               "training and, where the change can be folded into weights, no computation.", correct=True),
        Option("training", "Smoothing and rotating train the weights a little, so they recover what planting had broken",
               "Nothing was trained, and planting broke nothing: in floats all three give the same bits per character, to the last digit printed."),
        Option("clipping", "Smoothing and rotating cut the outliers off, and outliers are noise",
               "Nothing is cut off: the function is the same, so all that an outlier said is still said, in smaller numbers."),
        Option("weights", "Their weights are smaller, so they fit into 8 bits better",
               "Each row of a weight has a scale of its own, so the size of weights does not matter. And smoothing makes some of them larger."))),
)

PREDICTIONS = (
    Prediction(id="9.p2", prompt="3 bits, groups of 32 weights, mean over three networks: rounding to the nearest costs some percent more bits per character. How many times fewer "
               "percent does GPTQ cost?", unit="times", log=True),
    Prediction(id="9.p3", prompt="Half of the weights dropped, mean over three networks: what Wanda costs in bits per character, divided by what magnitude costs. (Below 1, Wanda is "
               "better.)", unit="x", log=True),
)
