"""The questions 4.q4 to 4.q9 and predictions 4.p3 to 4.p6 of the second half of chapter 04."""

from __future__ import annotations

from compresslab.course.exercise import Option, Prediction, Question

QUESTIONS = (
    Question(id="4.q4", prompt="Your student has ten logits of its own for every image, as the teacher has. When does the direction of KL matter?", options=(
        Option("small", "Where the student is too small to match the teacher: then the direction decides which part of the teacher it gives up",
               "Yes. Both divergences are 0 at the same place, a perfect copy. A student that cannot get there must give up something, and forward and "
               "reverse pay for different things.", correct=True),
        Option("always", "Always: the two losses have different minima",
               "Both have their minimum, 0, at student = teacher. They differ only in how they count what is missing."),
        Option("never", "Never: for softmax outputs the two are equal",
               "They are equal only where the two distributions are, or for lucky pairs. Put two rows of logits in and see."),
        Option("ten", "Only with many outcomes, as in language: ten classes are too few",
               "Your first test had two outcomes, and the directions differed by a factor. Language models feel it more because they are further from their teachers."))),
    Question(id="4.q5", prompt="Suppose that the best regressor could read 100 % of the teacher's layer out of the untrained student. What would the hint teach the student?",
             options=(
        Option("nothing", "Nothing: with that regressor the loss is 0, and so is the gradient that reaches the student",
               "Yes. A hint asks only that the teacher's features can be *read* from the student's by such a regressor. A stronger regressor asks "
               "less of the student: with a deep one, the regressor would do the work and be thrown away.", correct=True),
        Option("all", "Everything: it would be as accurate as the teacher from the first step",
               "It would carry the teacher's features, but its own last layers have not learned to use them; and the hint has nothing left to say."),
        Option("bytes", "As much as otherwise, but the file would have to keep the regressor",
               "The regressor stands beside the network and is never part of the student's answer: it costs nothing after training."),
        Option("width", "That cannot be: the student has fewer channels than the teacher",
               "A teacher's 64 channels may well be linear combinations of 32: then the smaller student can hold them all."))),
    Question(id="4.q6", prompt="KD = TCKD + (1 - p_t) NCKD. A better teacher is surer of the right class. What becomes of its message about the other classes?", options=(
        Option("fades", "It fades: the surer the teacher, the smaller the factor in front of it, so the best teacher says the least about them",
               "Yes. That is one reason why a better teacher is not always a better one to learn from. A temperature takes some sureness away, "
               "and DKD replaces the factor by a constant.", correct=True),
        Option("clear", "It becomes clearer, and its weight stays: a better teacher knows better which classes are alike",
               "It may know better. But its probability 1 - p_t for all of them together shrinks, and that is the weight of what it says."),
        Option("tckd", "It moves into TCKD: the surer the label, the more TCKD says about the others",
               "TCKD sees two outcomes, the label and the rest. How the rest is shared among the classes it cannot tell."),
        Option("labels", "Nothing: the labels decide the factor, not the teacher",
               "p_t is the *teacher's* probability of the label. A label only says which one to look at."))),
    Question(id="4.q7", prompt="Two peers start with the *same* weights and always see the same batches in the same order. What does mutual learning change?", options=(
        Option("nothing", "Nothing: they always agree, their divergence is 0, and each learns from the labels alone",
               "Yes. What one peer can give the other is where it differs. Other first weights, other images, another architecture: without any, "
               "a mirror teaches nothing.", correct=True),
        Option("double", "They learn twice as fast: each has two sources",
               "The second source says exactly what the first network already thinks: no gradient."),
        Option("worse", "They make each other's mistakes worse",
               "A mistake that both share costs no divergence, but none is added either: the gradient of KL is 0 wherever the two agree."),
        Option("average", "Their weights become the average of two independent trainings",
               "There are not two independent trainings: same weights, same batches, same steps."))),
    Question(id="4.q8", prompt="With SGD a learning rate that is fine for labels can be too high for T^2 KL. AdamW hardly notices the factor. Why?", options=(
        Option("divides", "AdamW divides each step by the recent size of the gradient: a constant factor cancels",
               "Yes. Multiply a loss by 16 and AdamW makes the same steps (up to its epsilon); SGD makes steps 16 times as long.", correct=True),
        Option("clip", "AdamW clips gradients that are too long",
               "It does not clip. It divides by a running root mean square, long or short."),
        Option("decay", "Its weight decay pulls the weights back",
               "With a decay of 0.01 and a rate of 0.01 each step takes one ten-thousandth away: nothing that would stop a divergence."),
        Option("t", "It sees the loss before T^2 is multiplied",
               "It sees gradients of whatever loss you differentiate, the factor included."))),
    Question(id="4.q9", prompt="A paper: \"our loss gains 0.4 points over plain distillation\", one run each. You run both with five paired seeds: the mean difference "
             "is +0.4, its 95 % interval goes from -0.3 to +1.1. Your verdict?", options=(
        Option("open", "Not distinguishable at this effort: the gain may be real, zero, or a loss; more seeds would tell",
               "Yes. And that is a result: it says how large an effect could still hide, here one point.", correct=True),
        Option("confirmed", "Confirmed: the same 0.4 points came out",
               "The same mean, from five numbers that scatter by more. An interval that holds 0 confirms no sign."),
        Option("refuted", "Refuted: the interval holds 0, so there is no effect",
               "It holds +1.1 as well. Absence of evidence at five seeds is not evidence of absence."),
        Option("unpaired", "Invalid: the seeds of two methods cannot be paired",
               "Same first weights, same images in the same order: that is what pairing is, and it removes most of the scatter."))),
)

PREDICTIONS = (
    Prediction(id="4.p3", prompt="The student that forward KL chooses: how much of its probability lies in the valley between the peaks, where the teacher has 1.9 %?",
               unit="%"),
    Prediction(id="4.p4", prompt="A ResNet with 8 to 32 channels was trained on labels and has never met our teacher. How much of the variance of the teacher's last block "
               "can the best linear regressor read out of the student's last stage, on images that it was not fitted to?", unit="%"),
    Prediction(id="4.p5", prompt="Take the half of the images that the teacher is surest about. At T = 1, what share of the sum of all (1 - p_t) NCKD comes from them?",
               unit="%"),
    Prediction(id="4.p6", prompt="CIFAR-100, resnet56 teaches resnet20: how many of the seven later methods in this list beat plain soft targets "
               "(Hinton et al., 2015): FitNets, AT, FSP, SP, RKD, CRD, DKD?", unit="of 7"),
)
