"""Questions 5.q1 to 5.q3 and predictions 5.p1 and 5.p2."""

from __future__ import annotations

from compresslab.course.exercise import Option, Prediction, Question

QUESTIONS = (
    Question(id="5.q1", prompt="To keep 90 % of its energy, the kernel of conv2 needs rank 14 as 'input', 17 as 'pixel', 32 as 'output' and 47 as 'spatial'. "
             "Which of the four is the one to use?", options=(
        Option("cost", "The ranks do not say: compare the errors at equal cost, k (rows + columns); there 'spatial' is ahead, with its highest rank",
               "Yes. One rank of 'input' costs 20 + 1,250 numbers, one of 'spatial' 100 + 250. A rank is a price in a currency, and each flattening has its own. "
               "(And at equal numbers the MACs still differ with the stride: 'input' has its 1x1 before it.)", correct=True),
        Option("input", "'input': its rank is the smallest, so it is the most compressible",
               "Its rank *must* be small: a matrix with 20 rows has rank 20 at most. Rank 14 of 20 says that nearly all of it is needed, and each rank costs 1,270 numbers."),
        Option("share", "'spatial': it needs the smallest share of its full rank, 47 of 100",
               "The right flattening for a wrong reason: the share of the full rank is no cost either. 'output' and 'input' would then be 64 % and 70 %, but their "
               "break-even ranks are at 90 % and 95 % of the full rank, that of 'spatial' at 71 %."),
        Option("same", "Any: they are the same numbers, so the same rank must carry the same information",
               "They are the same numbers in four tables. Which of them lie in one row decides what 'proportional rows' means, and only proportional rows are cheap."))),
    Question(id="5.q2", prompt="Every layer kept 60 % of its energy. One layer alone then cost more than a third of all answers, another almost nothing. Why is one "
             "energy for all layers a poor rule?", options=(
        Option("scale", "Energy is measured on the layer's own scale: it says neither what a layer's error does to the answers nor what a rank of it saves",
               "Yes. It compares ranks *within* a layer. Between layers you need a common currency: accuracy or error at the output, against MACs or bytes. Section 8 "
               "makes a budget of it.", correct=True),
        Option("size", "Large layers keep too much: a rank should be the same share of the full rank everywhere",
               "Then the energies would differ instead. The same share of ranks is just as blind: it asks neither what is lost nor what is saved."),
        Option("noise", "The fragile layer is noisier than the others: 60 % of its energy is hardly signal",
               "A noisy layer would be robust: what is lost would be noise. And the answers fell because something was lost that mattered."),
        Option("higher", "60 % is too little; at 90 % in every layer the rule is good",
               "At 90 % little is lost, and little or nothing saved: you saw kernels whose rank for 90 % costs as much as the kernel. The rule is not good, it is idle."))),
    Question(id="5.q3", prompt="In conv1, at rank 2, your response_svd made the layer's output error smaller and the network *worse*. What is the best explanation?", options=(
        Option("behind", "The error counts each direction of the output by how strongly it varies; the layers behind weigh directions otherwise, and batch norm turns small "
               "channels up again",
               "Yes: weighed as the batch norm does it, the same method lost less, so that is a part of it, and the rest lies deeper in the network. What is nearest in one place "
               "need not be nearest in another; with fewer ranks than it needs, a layer must choose. The cure is to look further: the next layers, the loss, or fine-tuning.", correct=True),
        Option("overfit", "It fitted the calibration images: on other images the output error is larger than that of the plain SVD",
               "A moments matrix of 27 x 27 from tens of thousands of patches is hardly overfitted, and the error printed is of images that the fit has not seen."),
        Option("bug", "response_svd minimises the wrong thing: a smaller output error must give better answers",
               "The check proved that no other matrix of this rank has a smaller output error. That is what was asked for; the network was not asked."),
        Option("weights", "The weights are further away, and it is the closeness of the weights that counts",
               "In every other row of the table the weights were further away, too, and the answers better. The network never sees weights, only what they do to its inputs."))),
)

PREDICTIONS = (
    Prediction(id="5.p1", prompt="fc1 (300 x 784) of lenet300 is cut to the smallest rank that loses at most one point of accuracy, without any training. How many percent "
               "of its energy (the sum of the squared weights) are then gone?", unit="%"),
    Prediction(id="5.p2", prompt="stage2.0.conv2 of ResNet-8 at rank 8 of 32. The closest weights leave about 45 % of the answers right. How many percent does the closest "
               "output leave, at the same rank and the same cost?", unit="%"),
)
