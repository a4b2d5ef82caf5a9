"""Question 11.q4 and prediction 11.p4."""

from __future__ import annotations

from compresslab.course.exercise import Option, Prediction, Question

QUESTIONS = (
    Question(id="11.q4", prompt="The depthwise layers of the mobilenet lie on the slope, left of the ridge, at batch 1 and at batch 32. A new processor has the same memory and multiplies "
             "8-bit numbers eight times as fast as floats. By the roofline, how much faster do these layers get at most when weights and activations become int8?", options=(
        Option("four", "Four times: they wait for bytes, and there are four times fewer; the multiplier does not matter while they do",
               "Yes. On the slope only the bytes count. With four times fewer of them a layer does as many MACs with a quarter of the bytes: four times the intensity, four times the "
               "speed, as long as it stays on the slope. The eight-fold multiplier waits as the old one did.", correct=True),
        Option("eight", "Eight times: int8 is multiplied eight times as fast",
               "That is the flat part of the roof, which these layers do not reach. They wait for bytes, and the multiplier waits with them."),
        Option("product", "32 times: four times fewer bytes, and each is multiplied eight times as fast",
               "The two clocks run side by side and the slower one decides: gains of both are never multiplied."),
        Option("none", "Not at all: what lies left of the ridge cannot be helped by compression",
               "It is the other way round: left of the ridge fewer bytes are exactly what helps. A larger batch does not help them: weights, which it would share, are few here; activations, "
               "which it does not share, are many."))),
)

PREDICTIONS = (
    Prediction(id="11.p4", prompt="Half of the channels of the resnet8 are removed; about a quarter of the MACs is left. How many times faster is it at batch 1 in ONNX Runtime, with one thread, "
               "on the machine of the recorded table?", unit="x", log=True),
)
