"""Question 11.q1 and prediction 11.p1."""

from __future__ import annotations

from compresslab.course.exercise import Option, Prediction, Question

QUESTIONS = (
    Question(id="11.q1", prompt="A colleague times the old network 1,000 times, then the new one 1,000 times: means 2.00 and 1.90 ms, and both standard errors are below 0.01 ms. \"Five "
             "percent faster, ten standard errors.\" What is wrong?", options=(
        Option("drift", "The standard error only knows the noise inside a block; that the machine as a whole was faster in the second minute is no noise that more samples would remove",
               "Yes. Neighbouring samples are not independent: clock frequency, temperature and other programs change slowly, and all 1,000 of a block share them. Taking turns puts the slow "
               "changes into both columns, where the ratio loses them. An A/A test in the same two blocks would have shown it.", correct=True),
        Option("few", "1,000 samples are too few for a difference of 5 %",
               "A million in the same two blocks would make the standard error smaller still, and the answer no better: the error is not in the sample size."),
        Option("median", "Means instead of medians: with medians the two blocks would be comparable",
               "Medians take away pauses that hit a few samples. A whole minute at another clock frequency moves the median as it moves the mean."),
        Option("nothing", "Nothing: ten standard errors cannot be chance",
               "Chance it is not: the two minutes did differ. But the machine may have made that difference, not the network."))),
)

PREDICTIONS = (
    Prediction(id="11.p1", prompt="A hundred times a network was timed against itself, 40 runs under one name and then 40 under the other. Each time a 95 % interval was computed for the difference of the two "
               "means. Which fraction of the hundred intervals says \"there is a difference\"? (Between 0 and 1. An honest interval would say it in 0.05 of the cases.)", unit="of the tests"),
)
