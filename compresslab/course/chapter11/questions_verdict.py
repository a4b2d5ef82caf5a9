"""Question 11.q5 and prediction 11.p5."""

from __future__ import annotations

from compresslab.course.exercise import Option, Prediction, Question

QUESTIONS = (
    Question(id="11.q5", prompt="Your network must answer faster on a processor that you do not choose, one image at a time, in an ordinary inference engine. It is now float32 and dense. What do you try "
             "first, and why?", options=(
        Option("structured", "Removing whole channels, and int8 in an engine that has kernels for it: both leave dense kernels with less to do, and they can be combined",
               "Yes. Removed channels are smaller dense tensors, which every engine can multiply; int8 needs kernels, which engines for phones and servers have. Then measure: what it gives "
               "depends on layers and machine, as the table shows: on the narrow layers of the resnet8 both together gain less than the removed channels alone.", correct=True),
        Option("unstructured", "Magnitude pruning to 90 % zeros: it removes the most weights at equal accuracy",
               "And the file shrinks, if it is coded. A dense kernel multiplies the zeros; a sparse one pays for every index. Some special engines and chips do use such zeros, an ordinary engine does not."),
        Option("fourbit", "4-bit weights: eight times fewer bytes to read",
               "That helps where weights are most of what is read: large matrix products, one row at a time. In a convolution each weight is used at every pixel, and unpacking it comes on top."),
        Option("lowrank", "Low rank in every layer: two small layers instead of a large one",
               "Below break-even it saves MACs, but it doubles the operations and makes thin matrices, which kernels like least. Good for a few large layers, not for all."))),
)

PREDICTIONS = (
    Prediction(id="11.p5", prompt="A 1024 x 1024 weight matrix in compressed sparse rows, 90 % of it zeros, times 32 columns: ten times fewer MACs than the dense product. On the machine of the recorded table, with "
               "one thread, how many times faster is torch's sparse product? (Below 1: slower.)", unit="x", log=True),
)
