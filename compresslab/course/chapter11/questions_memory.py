"""Question 11.q6 and prediction 11.p6."""

from __future__ import annotations

from compresslab.course.exercise import Option, Prediction, Question

QUESTIONS = (
    Question(id="11.q6", prompt="A network's weights fit the flash of a microcontroller, its activations do not fit the RAM. Which change is sure to lower the peak of the activations?", options=(
        Option("widest", "Fewer channels in every tensor that lives at the largest moment",
               "Yes. The peak is the sum of what lives at one moment, so smaller tensors at that moment make that moment smaller. Then another moment is the largest, and you look there.", correct=True),
        Option("zeros", "Setting nine of ten weights to zero",
               "Zeros shorten the file. The outputs of the layers have as many numbers as before, and it is these that lie in RAM."),
        Option("bits", "Storing the weights in 4 bits instead of 8",
               "That halves the flash. Activations are not stored in the file, and they have the bits that the engine computes in."),
        Option("last", "Fewer units in the widest fully connected layer",
               "Most weights are there, and few activations: its output is a vector. The peak lies where images are large, mostly in front."))),
)

PREDICTIONS = (
    Prediction(id="11.p6", prompt="The resnet8 as an .onnx file has about 0.3 MB. A fresh process with nothing but numpy and ONNX Runtime loads it and runs one image at a time. What is the "
               "largest memory that this process takes, on the machine of the recorded table?", unit="MB", log=True),
)
