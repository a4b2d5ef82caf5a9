"""The questions and predictions of the second half of chapter 03."""

from __future__ import annotations

from compresslab.course.exercise import Option, Prediction, Question

QUESTIONS = (
    Question(id="3.q4", prompt="Why may the wide middle of an inverted residual have its ReLU6, and the thin end not?", options=(
        Option("copies", "In many channels what one channel sets to zero is still written in others; in few channels it is gone",
               "Yes: your spiral came back from 30 dimensions and not from 2. The width of the middle is what makes its non-linearity affordable.",
               correct=True),
        Option("cost", "An activation behind the last convolution would cost too many MACs",
               "A relu costs no multiply-accumulate at all, and it would act on the fewest channels of the block."),
        Option("sum", "Because a number is added to it, and a relu before an addition has no gradient",
               "It has the gradient of any relu. Blocks of stride 2, where nothing is added, have a linear end too."),
        Option("norm", "Batch norm already is a non-linearity there",
               "At test batch norm is a scale and a shift of each channel: linear, up to the constant."))),
    Question(id="3.q5", prompt="Three blocks, one number of parameters, one number of MACs. Why do two of them take longer?", options=(
        Option("bytes", "They move more numbers for each multiplication: wide maps go to memory and come back between cheap layers",
               "Yes. A depthwise layer does nine multiplications for each number that it reads and writes, a dense 3x3 from 64 channels hundreds: "
               "it lies far to the left on the roofline. And each layer more is a call more.", correct=True),
        Option("batch norm", "Their batch norms are counted as parameters but not as MACs",
               "True, and tiny: one multiplication for each number. What batch norm costs is again the way to memory and back."),
        Option("more", "The MAC counter leaves out the depthwise layers",
               "It counts them: 9 for each channel and pixel. They are few; that is the point of them, and the trap."),
        Option("noise", "The stopwatch: with equal operations the times are equal",
               "The blocks took turns, and the quartiles lie far apart. Equal operations are equal arithmetic, not equal time."))),
    Question(id="3.q6", prompt="Stochastic depth saved a quarter of the training. What does it save at test time, and how does LayerDrop differ?", options=(
        Option("nothing", "Nothing: every block is computed at test. LayerDrop trains a network that bears missing blocks, and then removes them for good",
               "Yes. One is a way to train a deep network, the other a way to make it shallow. Both toss the same coins in training.", correct=True),
        Option("quarter", "A quarter as well: at test each block is skipped with its probability",
               "Then the answers would depend on coins. At test every branch is computed and multiplied by p_l."),
        Option("half", "Half: p_L = 0.5, so half of the blocks are gone after training",
               "No block is gone: which ones were dropped changed at every step, and all of them were trained."),
        Option("same", "Both remove blocks at test; they differ only in which",
               "Look at your function: with training=False there is no `if` left that could skip a block."))),
    Question(id="3.q7", prompt="Suppose that the search ends at the candidate with the best score of all. What do you know about this network?",
             options=(
        Option("proxy", "That it is a good candidate to train: alone and fully trained, others near the top may well be better",
               "Yes. The score is a stand-in: shared weights, few validation images. In your figure it tells large steps apart, not neighbours. "
               "Train the first few alone, with several seeds, and compare them as in chapter 00.", correct=True),
        Option("best", "That it is the best network within the budget: the enumeration confirms it",
               "The enumeration confirms the search, not the score. Both believed the same stand-in."),
        Option("accuracy", "Its accuracy: the score was measured on images that it was not trained on",
               "It was: but with weights that must serve all candidates at once. Alone it has other weights, and another accuracy; see the figure."),
        Option("nothing", "Nothing: shared weights say nothing about networks trained alone",
               "They say something: they learned the task, and the score was measured on images outside the training. It is too rough to decide between neighbours, no more."))),
)

PREDICTIONS = (
    Prediction(id="3.p3", prompt="Three blocks that keep a 16 x 16 image and their channels: a dense 3x3 convolution, a separable one, an inverted residual, as wide as about 37,000 "
               "parameters allow. How many times the MACs of the dense block does the inverted residual need?", unit="x", log=True),
    Prediction(id="3.p4", prompt="And how many times as long does it take, on one thread, in batches of eight?", unit="x", log=True),
    Prediction(id="3.p5", prompt="A residual network of 54 blocks was trained with stochastic depth, p_L = 0.5: an average training step computed 40 of the blocks. How many times "
               "fewer blocks does it compute for a test image than the same network trained without? (1: equally many.)", unit="x", log=True),
)
