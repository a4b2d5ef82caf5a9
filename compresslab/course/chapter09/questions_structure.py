"""Questions 9.q7 and 9.q8, prediction 9.p6."""

from __future__ import annotations

from compresslab.course.exercise import Option, Prediction, Question

QUESTIONS = (
    Question(id="9.q7", prompt="A teacher answers a question in one of two ways, each half of the time. The student is too small to hold both apart. What does it say if it learns by the *forward* divergence?", options=(
        Option("between", "Anything between and around the two ways, things the teacher would never say among them: missing one of the two costs more than saying nonsense",
               "Yes: KL(p || q) asks, where the *teacher* speaks, whether the student could have said it. Where only the student speaks, it does not look.", correct=True),
        Option("one", "One of the two ways, the likelier one",
               "That is the reverse divergence, which looks where the student speaks. The forward one is without bounds if the other way gets no probability."),
        Option("half", "Both ways, each half of the time: the divergence is 0 then",
               "It would be, if the student could. It is too small for that, and then the two directions lead to different students."),
        Option("same", "The same as by the reverse divergence: both are 0 for equal distributions only",
               "Both have the same minimum where it can be reached. Where it cannot, they fail in different ways."))),
    Question(id="9.q8", prompt="One block, used four times, against four blocks of their own. Which of these does sharing make about four times smaller?", options=(
        Option("weights", "What the blocks take in the file, and in memory as weights; not the multiplications, and not the cache of keys and values",
               "Yes. Every use multiplies, and every use sees another stream, so it has keys and values of its own.", correct=True),
        Option("macs", "The multiplications per token: there is one block only",
               "The block runs four times, and each run multiplies with all of its weights."),
        Option("cache", "The cache of keys and values: equal matrices make equal keys",
               "Equal matrices, but other inputs: the stream has changed between two uses. Each use needs a cache of its own."),
        Option("all", "All of it: file, multiplications and cache",
               "Only what is *stored once* shrinks. What is done four times is still done four times."))),
)

PREDICTIONS = (
    Prediction(id="9.p6", prompt="Half of the sixteen heads, those of lowest score, are removed from the trained GPT, and nothing is trained afterwards. How many percent more bits per character does it need?",
               unit="%", log=True),
)
