"""Questions 9.q5 and 9.q6, predictions 9.p4 and 9.p5."""

from __future__ import annotations

from compresslab.course.exercise import Option, Prediction, Question

QUESTIONS = (
    Question(id="9.q5", prompt="Weights of 4 bits instead of 16 make one text come more than three times as fast on the large machine; 512 short texts at a time, not at all faster. Why?", options=(
        Option("bytes", "With one text the step waits for the weights, and those are now far fewer bytes; with many it waits for multiplications, which are as many as before",
               "Yes. Each weight is read once per step and multiplied once per text. So the batch decides which of the two clocks runs longer. The multiplications are done in "
               "16 bits in both cases; fewer bits make none of them cheaper.", correct=True),
        Option("arithmetic", "Numbers of 4 bits are multiplied faster, but unpacking them for 512 texts eats that up",
               "Nothing is multiplied in 4 bits here, at any batch size: your function has one speed for arithmetic. (Machines that multiply 4-bit numbers exist; then activations need "
               "4 bits as well.)"),
        Option("cache", "With 512 texts the caches are most of what is read, and they are not rounded",
               "With long texts that is so, and it was the surprise before. These texts are short: their caches are small."),
        Option("bandwidth", "512 texts share the bandwidth, so each gets its weights more slowly",
               "They share the weights, not the bandwidth: what is read for one serves all."))),
    Question(id="9.q6", prompt="You draft with a bad model, the GPT's 2-bit copy or even random characters. What happens to the text?", options=(
        Option("nothing", "It has the same distribution as before; only fewer tokens are accepted, so it takes longer",
               "Yes. For every q the rule gives p: you have summed it up exactly. The draft decides how many calls of the target are saved, never what is written. Too bad a draft costs "
               "more time than it saves.", correct=True),
        Option("worse", "It gets a little worse: some bad proposals are accepted by chance",
               "They are, and exactly as often as the target itself would have written them: min(q, p) from proposals, the rest of p from drawing again."),
        Option("identical", "It stays the same text, character for character, as the target would write with this generator",
               "At temperature 0 it does. Else other random numbers are used up for other things, and another text comes out, from the same distribution."),
        Option("between", "It is distributed somewhere between the two models, nearer to the target the more is rejected",
               "That would be so if a rejected token were drawn from p. It is drawn from (p - q)+, which makes up exactly for what the draft proposes too often."))),
)

PREDICTIONS = (
    Prediction(id="9.p4", prompt="The large machine writes 32 texts at a time, each 4,096 tokens long so far, with caches of 16 bits. How many times faster does it write when the weights "
               "take 4.5 bits instead of 16?", unit="x", log=True),
    Prediction(id="9.p5", prompt="The GPT's own 4-bit copy drafts k = 4 tokens at a time. How many tokens does the GPT write per call, on average over 1,200 of them? (Between 1 and 5.)",
               unit="tokens"),
)
