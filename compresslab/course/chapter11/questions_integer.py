"""Question 11.q3 and prediction 11.p3."""

from __future__ import annotations

from compresslab.course.exercise import Option, Prediction, Question

QUESTIONS = (
    Question(id="11.q3", prompt="Somebody simulates int8 in PyTorch (fake quantization: every tensor is rounded to 256 values, and stays float32) and measures that the network has become slower. "
             "The same numbers in an int8 file run faster than float. What is the difference?", options=(
        Option("kernels", "The simulation multiplies floats and rounds on top; the file lets the engine choose kernels that multiply integers and move a quarter of the bytes",
               "Yes. Speed comes from the kernel that runs, not from the values that a tensor happens to hold. QLinearConv reads bytes, adds products in 32 bits, and rounds once at the end; the simulation does "
               "all the float work, and the rounding, too.", correct=True),
        Option("calibration", "The simulation has no calibration, so its ranges have to be found again at every call",
               "The scales can be the very same ones, found beforehand; the simulated network would still multiply floats."),
        Option("python", "PyTorch runs Python code between the layers; ONNX Runtime does not",
               "That costs some microseconds per layer, and explains part of float against float. It does not explain why int8 is slower than float inside PyTorch, and faster inside the engine."),
        Option("values", "Rounded values need fewer digits, and the engine skips digits that are zero",
               "No multiplier gets faster because of the values it is given: a float32 product takes as long for 1.0 as for 0.1234567."))),
)

PREDICTIONS = (
    Prediction(id="11.p3", prompt="The same engine, the same network (resnet8, batch 1, two threads), int8 instead of float32: how many times faster, on the machine of the recorded table?", unit="x", log=True),
)
