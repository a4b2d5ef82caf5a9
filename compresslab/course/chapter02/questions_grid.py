"""Questions 2.q1 to 2.q4 and predictions 2.p1 to 2.p3."""

from __future__ import annotations

from compresslab.course.exercise import Option, Prediction, Question

QUESTIONS = (
    Question(id="2.q1", prompt="Every other number may be off by half a step. Why must 0 be hit exactly?", workshop=True, options=(
        Option("padding", "Zeros are everywhere: padding and relu produce them in masses, and all of them would be off by the same amount",
               "Yes. An error that is the same at every padded pixel and every silent unit does not average out: it is a bias that all layers "
               "behind carry on.", correct=True),
        Option("divide", "Otherwise dequantizing would divide by zero",
               "The way back multiplies by the scale and divides by nothing; only an empty range could make the scale zero."),
        Option("sign", "Otherwise the sign bit would be wasted",
               "There is no sign bit in an unsigned grid: the zero point plays its part."),
        Option("smaller", "So that zeros can be left out of the file",
               "This format stores every number in the same bits, zero or not."))),
    Question(id="2.q2", prompt="With one scale per tensor, from 8 bits to 4 the weights of that layer lost 25 dB and the network little; from 4 to 3 they lost 7 dB and the network "
             "a third of its answers. Why does the accuracy not follow the decibels?", workshop=True, options=(
        Option("margin", "An answer flips only when the noise outgrows its margin, and errors of all layers add up on the way",
               "Yes. Below the margins noise costs nothing, near them every decibel counts, so there is a cliff. Where it stands differs "
               "from network to network: measure it.", correct=True),
        Option("step", "With 3 bits most of the weights are rounded to zero, and a zero weight is a lost weight",
               "Set only those weights to zero, or round only the others: each of the two alone does great damage. What counts is the error of "
               "the sums, wherever it comes from."),
        Option("log", "Decibels are logarithmic; on a linear scale the steps would be equal",
               "They would not: in power 25 dB is a factor of 300, 7 dB a factor of 5. The small step did the damage."),
        Option("first", "The first layer cannot live with 3 bits, all the others can",
               "Try it, `quantized` has an argument `only` for that: it helps a little, and most of the loss stays."))),
    Question(id="2.q3", prompt="At 8 bits the best range covers almost everything, at 3 bits far less. What does the number of bits change?", options=(
        Option("balance", "Rounding error shrinks by 4 with every bit, the clipping error of a range does not: with many levels clipping is the larger evil",
               "Yes. The best range is where the two kinds of error balance, and only one of them depends on the bits.", correct=True),
        Option("outliers", "With 8 bits there are levels enough to give the outliers some of their own",
               "A uniform grid cannot do that: its levels are spread evenly over the range, however many there are."),
        Option("noise", "At 3 bits the search follows the noise of the sample",
               "With 3 bits the full range has several times the error of the best one: no noise of a sample of this size does that."),
        Option("relu", "The relu removed the outliers before 8 bits could see them",
               "A relu removes what is below zero. The long tail is above, and it is the same sample for all numbers of bits."))),
    Question(id="2.q4", prompt="Both factors have 8 bits. How many bits does the accumulator of a 3x3 convolution over 64 channels need in the worst case?",
             options=(
        Option("sum", "About 26: 16 for a product and another 10 for the sum of 576 of them",
               "Yes. 255 * 127 * 576 is about 2^24.2, plus the sign. That is why hardware accumulates int8 in int32, and why the bias may "
               "have 32 bits.", correct=True),
        Option("eight", "8: the output has 8 bits again",
               "It has 8 bits after the rescale. Before it, the sum must not lose anything."),
        Option("sixteen", "16: a product of 8 bits and 8 bits has 16",
               "One product has. Here 576 of them are added: in int16 the second could overflow already."),
        Option("all", "8 * 576: every product adds its bits",
               "Adding two numbers of n bits gives n + 1 bits: the sum of 576 products needs log2(576) more than one of them."))),
)

PREDICTIONS = (
    Prediction(id="2.p1", prompt="Numbers drawn from a uniform distribution are rounded to a grid that covers them. How many decibels does "
               "one more bit bring?", unit="dB per bit", workshop=True),
    Prediction(id="2.p2", prompt="In a layer at 8 bits with one scale, the largest of its 36,864 weights becomes 100 times larger. How many decibels "
               "do the others lose?", unit="dB", workshop=True),
    Prediction(id="2.p3", prompt="Every weight, every activation and every operation of ResNet-8 becomes an integer, 8 bits wide. For how many of "
               "500 images does the answer change?", unit="images", workshop=True),
)
