"""The questions and predictions of the second half of chapter 02."""

from __future__ import annotations

from compresslab.course.exercise import Option, Prediction, Question

QUESTIONS = (
    Question(id="2.q5", prompt="Suppose the eight inputs were uncorrelated, so that $H$ is diagonal. In how many of the 100 rows would nearest be the best?",
             options=(
        Option("all", "In all of them",
               "Yes. Then the output error is a sum with one term for each weight, and nearest makes every term as small as it can be. "
               "What nearest cannot do is let one error cancel another.", correct=True),
        Option("same", "In about as many as with the real inputs: 256 choices are 256 choices",
               "The number of choices does not matter. What matters is whether the errors of different weights meet: with a diagonal H they do not."),
        Option("half", "In about half of them: each weight is a coin toss",
               "No coin is tossed. With a diagonal H each weight adds h_jj d_j^2 of its own, and nearest makes each of these smallest."),
        Option("none", "In none: best_rounding always finds something better",
               "It looks at every choice, and nearest is one of them. With a diagonal H no other choice beats it."))),
    Question(id="2.q6", prompt="You train with the true gradient of `round`, without the straight-through estimator. What happens?", workshop=True, options=(
        Option("norms", "The loss falls a little: batch norms and biases learn; the loss never moves a quantized weight",
               "Yes. Their gradients do not pass through any rounding of their own. That is why this bug is hard to see: training seems to work.",
               correct=True),
        Option("error", "PyTorch raises an error: round has no gradient",
               "It has one, zero almost everywhere, and PyTorch hands it on without a word."),
        Option("random", "The weights walk at random", "A gradient of zero is not noise: the loss does not move these weights at all."),
        Option("slower", "The same as with it, only slower", "Zero times any learning rate is zero: the weights would never arrive."))),
    Question(id="2.q7", prompt="Packed, the matrices are 32 times smaller, and xor and popcount do 64 products at a time. Why is it not 32 times faster?", options=(
        Option("kernel", "A float32 matmul is a tuned kernel that keeps its data in registers and cache; numpy writes every xor and every count to memory",
               "Yes. The arithmetic was never the bottleneck. In compiled code, with the popcount inside the loop, the same idea does win.", correct=True),
        Option("popcount", "Counting bits is slow: it needs a loop over 64 bits",
               "Processors count the ones of a word in one instruction, and np.bitwise_count uses it."),
        Option("pack", "Packing the matrices takes the time", "They were packed before the clock started."),
        Option("more", "The result has to be multiplied by the scales", "One multiplication for each output, after a thousand terms: it does not show."))),
    Question(id="2.q8", prompt="The cast before the clamp costs nothing as long as the ranges come from the test images, and points as soon as they do not. Why?",
             options=(
        Option("hidden", "Calibrated on the images of the report, no number exceeds the range: nothing is clamped and nothing wraps",
               "Yes. One bug hid another, and its number looked better than the honest one. Repair all, then measure.", correct=True),
        Option("eight", "With 8 bits a cast cannot wrap", "It can: 300 becomes 44. With 8 bits the grid ends exactly where the byte does."),
        Option("relu", "Behind a relu all numbers are positive", "Positive numbers wrap as well: 128 becomes -128."),
        Option("clamp", "The clamp behind the cast caught it",
               "Behind the cast the damage is done: 44 is a perfectly good byte, and the clamp lets it pass."))),
)

PREDICTIONS = (
    Prediction(id="2.p4", prompt="100 rows of eight weights, 4 bits. In how many of them is rounding each weight to its nearest the best of all 256 choices?",
               unit="rows of 100"),
    Prediction(id="2.p5", prompt="Two matrices of +1 and -1, 256 x 1024 and 1024 x 256. How many times faster than float32 matmul is xor and popcount in numpy, "
               "on 32 times fewer bytes? (Below 1: slower.)", unit="x", log=True),
    Prediction(id="2.p6", prompt="Every weight of ResNet-8 is stored in 3 bits instead of 32, 10.7 times fewer. How many times smaller is the file?",
               unit="x", log=True),
)
