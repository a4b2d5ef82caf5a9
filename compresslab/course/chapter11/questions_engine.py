"""Question 11.q2 and prediction 11.p2."""

from __future__ import annotations

from compresslab.course.exercise import Option, Prediction, Question

QUESTIONS = (
    Question(id="11.q2", prompt="Four-bit weights make the file several times smaller. In the table they make the wide linear layers faster and the convolutional network slower. Why?", options=(
        Option("reuse", "With one image the linear layers wait for their weights, and fewer bytes come sooner; a convolution uses each weight at many places and waits for its "
               "multiplications, which are as many as before, and the decoding is added",
               "Yes. What is saved is bytes read, so it helps where reading is the work. Besides, the engine has an operation that decodes inside a matrix product, and none that "
               "decodes inside a convolution: there it writes the float weights out first, at every run.", correct=True),
        Option("arithmetic", "Matrix products can be computed with 4-bit numbers, convolutions cannot",
               "Nothing here is multiplied in 4 bits. The products are computed with decoded weights (in the engine's default with inputs of 8 bits). What differs is who waits for what."),
        Option("small", "The convolutional network is too small: with more weights it would gain as well",
               "Look at the larger convolutional network in the table. More convolutions mean more multiplications too, and the weights of all of them are still decoded at every run."),
        Option("settings", "The engine was not allowed to optimize the convolutional network",
               "It was, and it did: norms are folded, ReLUs fused. You saw the operations it runs. The one that is missing does not exist in it: a convolution that decodes."))),
)

PREDICTIONS = (
    Prediction(id="11.p2", prompt="Stored with 4 bits per weight, how many times faster is ResNet-8 in this engine than with float weights, one image at a time? (Below 1: slower.)",
               unit="x", log=True),
)
