"""Questions 4.q1 to 4.q3 and predictions 4.p1 and 4.p2."""

from __future__ import annotations

from compresslab.course.exercise import Option, Prediction, Question

QUESTIONS = (
    Question(id="4.q1", prompt="The soft half carries the factor T^2. What does the temperature then still decide?", options=(
        Option("which", "Which of the teacher's logits count: at T = 1 those with some probability, at a high T all of them alike, the very negative ones too",
               "Yes. At T = 1 the push goes to the label and to what is mixed up with it; in the limit every logit's distance from its mean counts the same, noise "
               "in the lowest ones included. The best T lies between, and depends on teacher and student.", correct=True),
        Option("soft", "Only how soft the targets look: after T^2 the student is pushed in the same way at every T",
               "Compare the rows of the figure at T = 1 and T = 20: T^2 mends the length of the gradient, not its direction."),
        Option("rate", "How fast the student learns: a higher T is a higher learning rate",
               "That would be true without... T^2, upside down. With T^2 the length of the gradient settles at its limit as T grows, and the direction is what changes."),
        Option("unsure", "How sure the student is when it is used: trained at T = 4, it gives soft answers",
               "It is used at T = 1. A student that has matched the teacher at T = 4 has matched its logits, up to a constant, and is as sure as the teacher."))),
    Question(id="4.q2", prompt="In training, each image is now shifted by a random pixel or two whenever it is drawn. What becomes of the cached logits?", options=(
        Option("other", "They answer another picture than the student sees: the teacher must look at every shifted image itself",
               "Yes. The label survives a shift, the teacher's doubts belong to the very picture. `distill` refuses a cache together with `augment`.", correct=True),
        Option("label", "They stay right: a shifted 7 is a 7",
               "The label stays. But soft targets are worth something for what they say of *this* picture, and now they would be about another one."),
        Option("softer", "They stay right if T is raised, since a shifted image is less certain",
               "A higher T makes every answer softer in the same way; it does not know what this shift did to this image."),
        Option("train", "Cache them with the teacher in train mode, so that they vary, too",
               "They would vary with dropout and with the other images of the batch: noise that has nothing to do with the shift."))),
    Question(id="4.q3", prompt="Of the gain on the 200 images: what may you conclude from the three controls?", options=(
        Option("mixed", "Part of it, here more than half, needs no knowledge about wrong classes: softness and the teacher's doubts about single images "
               "do it; dark knowledge is what is left",
               "Yes. The name of an effect is no evidence for its cause. How large each part is depends on data, student and length of training, so a paper that "
               "holds soft targets against labels alone has not shown which part it was.", correct=True),
        Option("dark", "The gain is dark knowledge: soft targets beat labels, and dark knowledge is what labels lack",
               "Labels lack three things, and this is one of them. The shuffled targets have none of it, and kept more than half of the gain."),
        Option("none", "Dark knowledge is worth nothing: shuffled targets gain as well",
               "They gain, too, and less: the true soft targets were ahead with every seed. Three seeds do not settle how far."),
        Option("smoothing", "The teacher was not needed: label smoothing is the same thing",
               "It is the same kind of loss. But look at its two rows: the usual smoothing gained nothing here, and softness without a teacher ends well below the "
               "teacher's."))),
)

PREDICTIONS = (
    Prediction(id="4.p1", prompt="From T = 1 to T = 4, how many times shorter does the gradient of KL (without T^2) become, for a student that was never trained?",
               unit="times", log=True),
    Prediction(id="4.p2", prompt="Trained on the teacher's soft targets for the same 200 images instead of on the labels, how many points does the student gain, "
               "on the average of three seeds?", unit="points"),
)
